"""What ``runner models`` shows comes from the schemas, and is valid."""

from __future__ import annotations

import pytest

from runner.api.models import describe
from runner.schema import catalog

CATALOG = catalog.load_catalog()
PAIRS = [(name, model) for model, names in CATALOG.models.items() for name in names]


@pytest.mark.parametrize(("name", "model"), PAIRS)
def test_smallest_example_is_valid(name: str, model: str) -> None:
    """The example that is shown for a model selects the schema that it is shown for, and has no errors."""
    schema = CATALOG.schema(name)

    example = describe(schema, model).example

    assert schema is CATALOG.select(example)
    assert [finding for finding in schema.findings(example) if finding.severity == "error"] == []


def test_rules_by_model() -> None:
    """For all models the differences are named; for one model only its own rules are shown."""
    schema = CATALOG.schema("seedance-1")

    all_models = {parameter.name: parameter.rule for parameter in describe(schema).parameters}
    pro = {
        parameter.name: parameter.rule for parameter in describe(schema, "seedance-1-0-pro-250528").parameters
    }

    assert all_models["seconds"].startswith("-1 or 4 to 12 for seedance-1-5-pro-251215; 2 to 12 for ")
    assert pro["seconds"] == "2 to 12"
    assert pro["draft"] == "only false"
    assert pro["watermark"] == "true or false"
    assert pro["image"] == "http or https URL, or a local file"


def test_description_of_a_document() -> None:
    """Title, source, sizes and defaults come from the document."""
    description = describe(CATALOG.schema("wan-kf2v"), "wan2.1-kf2v-plus")
    parameters = {parameter.name: parameter for parameter in description.parameters}

    assert description.source == "api-reference/en/zmodelVideo/ali/video-first-last-frame*"
    assert description.sizes == ("720P",)
    assert description.seconds == "only '5'"
    assert parameters["images"].rule == "a list of exactly 2, each http or https URL"
    assert parameters["images"].is_required
    assert parameters["prompt_extend"].default is True


def test_media_fields() -> None:
    """Only Seedance allows local files; every field that names an image is known."""
    places = {
        media.path: media.limits.allows_data_uri
        for name in CATALOG.names
        if name != "seedance-1"
        for media in CATALOG.schema(name).media_fields
    }
    (image,) = CATALOG.schema("seedance-1").media_fields

    assert {
        ("image",),
        ("images", "*"),
        ("media", "*", "url"),
        ("media", "*", "reference_voice"),
        ("subject_reference", "*", "image", "*"),
    } == set(places)
    limits = image.limits_of("")
    assert limits.allows_data_uri
    assert "heic" in limits.formats_for("seedance-1-5-pro-251215")
    assert "heic" not in limits.formats_for("seedance-1-0-pro-250528")
    assert limits.allows_ratio(1.78)
    assert not limits.allows_ratio(0.4)
