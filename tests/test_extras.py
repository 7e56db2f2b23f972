"""Every optional extra has tests, and `python -m tests.extras` overlooks no skip."""

import re
from pathlib import Path

import pytest
from tests.extras import (
    MODULES,
    NO_FEATURE,
    ROOT,
    faults,
    feature_extras,
    files_using,
    read_report,
)

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="passes"/>
<testcase classname="tests.a" name="fails"><failure message="no"/></testcase>
<testcase classname="tests.b" name="b"><error message="at teardown"/></testcase>
<testcase classname="tests.c" name="c"><skipped message="{}"/></testcase>
</testsuite></testsuites>"""


def result_of(folder: Path, reason: str):
    path = folder / "report.xml"
    path.write_text(REPORT.format(reason))
    return read_report(path)


def test_every_extra_that_adds_a_feature_has_tests():
    assert {"cloud", "hub", "zoo"} <= feature_extras() <= set(MODULES)
    for extra in feature_extras():
        assert files_using(extra), extra


def test_the_page_on_installation_lists_every_extra():
    page = ROOT / "docs" / "reference" / "installation.md"
    table = page.read_text().split("## Extras\n")[1]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == feature_extras() | NO_FEATURE


@pytest.mark.parametrize("reason", ["no obstore", "needs the extra cloud", "install 'x[cloud]'"])
def test_a_test_of_an_installed_extra_must_not_be_skipped(tmp_path, reason):
    result = result_of(tmp_path, reason)
    skipped = f"skipped with the extra installed: {reason}"
    assert faults("cloud", result) == [*result.failures, skipped]
    assert faults("zoo", result) == result.failures
