"""What a person who watches a sweep sees of its running jobs."""

from mlxlab.sweep.progress_line import describe


def test_the_last_line_of_each_running_job_is_shown(tmp_path):
    for number, text in enumerate(["a\nstep 20/50\n\n", "", "x" * 5000 + "\rstep 3/9\x1b[2K"]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "output.log").write_text(text)
    running = {number: tmp_path / str(number) for number in (0, 1, 2, 3)}
    assert describe(running) == "job 0: step 20/50 | job 1:  | job 2: step 3/9 [2K | job 3: "
