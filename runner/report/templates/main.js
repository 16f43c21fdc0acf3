function drawCharts() {
  drawWhole();
  drawThroughput();
  drawGenerationTimes();
}

function addCopyButtons() {
  for (const command of document.querySelectorAll(".command")) {
    command.append(copyButton("Copy", () => command.querySelector("code").textContent));
  }
  for (const group of document.querySelectorAll(".group .actions")) {
    const cls = group.querySelector("[data-filter]").dataset.value;
    const tasks = DATA.jobs.filter((job) => job[FIELD.cls] === cls && job[FIELD.state] !== "succeeded" && job[FIELD.task_id]).map((job) => job[FIELD.task_id]);
    if (tasks.length) group.append(copyButton(`Copy ${formatCount(tasks.length, "task id")}`, () => tasks.join("\n")));
  }
}

localizeTimes();
if (document.getElementById("gallery")) {
  loadVerdicts();
  connectFilters();
  connectSections();
  connectKeyboard();
  addCopyButtons();
  // On a phone the controls would fill the first screen.
  document.getElementById("selection").open = innerWidth > 704;
  readAddress();
  drawCharts();
  draw();
  markVerdicts();
  let drawnWidth = document.body.clientWidth;
  new ResizeObserver(debounce(() => {
    // Filters change the height of the page; only a new width needs new charts.
    if (document.body.clientWidth === drawnWidth) return;
    drawnWidth = document.body.clientWidth;
    drawCharts();
    drawTimeline(sortJobs(matchingJobs()));
  }, 100)).observe(document.body);
}
