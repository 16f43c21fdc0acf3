// A comparison: a row for each prompt, a column for each value of what differs, such as the model or the seed.
function axisValue(job) {
  return String(sorts.get(view.by)(job) ?? "–");
}

function comparedRows(clips) {
  const rows = new Map();
  for (const job of clips) {
    const row = rows.get(job[FIELD.prompt]) ?? rows.set(job[FIELD.prompt], []).get(job[FIELD.prompt]);
    row.push(job);
  }
  return [...rows];
}

function comparison(clips, start) {
  const columns = [...new Set(clips.map(axisValue))].sort(compareValues);
  const head = [htmlElement("th", { scope: "col" }, "prompt"), ...columns.map((value) => htmlElement("th", { scope: "col" }, foreign(value)))];
  const rows = comparedRows(clips).slice(start, start + ROWS_PER_PAGE).map(([prompt, jobs]) => {
    const byValue = new Map(columns.map((value) => [value, []]));
    for (const job of jobs) byValue.get(axisValue(job)).push(job);
    const cells = columns.map((value) => htmlElement("td", {}, ...byValue.get(value).map((job) => clipCard(job, true))));
    return htmlElement("tr", {}, htmlElement("th", { scope: "row" }, foreign(prompt || "no prompt", { dir: "auto", class: "prompt" })), ...cells);
  });
  const table = htmlElement("table", {}, htmlElement("thead", {}, htmlElement("tr", {}, ...head)), htmlElement("tbody", {}, ...rows));
  return htmlElement("div", { class: "scroll", role: "region", "aria-label": "Comparison", tabindex: "0" }, table);
}
