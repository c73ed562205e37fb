"""Grids on Dask: a real scheduler and real worker processes over TCP on loopback, some of them killed."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from emubench.core.errors import EmubenchError
from emubench.runs.grid import clusters, plans, runner
from emubench.runs.grid.steps import Outcome, Step
from tests.support.contents import contents
from tests.support.dask_cluster import SEES, dask
from tests.support.grids import GRID, chain, note, options, results

pytest.importorskip("distributed", reason="the extra cluster is not installed")

SLURM = """
system = "slurm"
jobs = 2
cores = 2
memory = "4GB"
walltime = "01:00:00"
interface = "lo"
"""


# --- errors of one line, for which nothing need be started ------------------------------------------------------------


def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(refused, tmp_path, monkeypatch):
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "cluster.toml").write_text(SLURM)
    for module in ("distributed", "dask_jobqueue"):
        monkeypatch.setitem(sys.modules, module, None)
    line = refused("run", *options(tmp_path), "--scheduler", "tcp://127.0.0.1:1")
    assert line == "emubench: distributed is not installed; install it with: pip install 'emubench[cluster]'"
    line = refused("run", *options(tmp_path), "--cluster", tmp_path / "cluster.toml", "--dry-run")
    assert line == "emubench: dask-jobqueue is not installed; install it with: pip install 'emubench[cluster]'"


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (("--scheduler", "none.json"), "none.json: no such file"),
        (("--scheduler", "tcp://127.0.0.1:1"), "tcp://127.0.0.1:1: no Dask scheduler answers ("),
        (("--scheduler", "gopher://x"), "gopher://x: no Dask scheduler answers ("),
        (("--scheduler", "tcp://127.0.0.1:1", "--workers", "2"), "give one of --workers, --scheduler and --cluster"),
        (("--dry-run",), "--dry-run prints the job script of --cluster FILE"),
        (("--cluster", "none.toml"), "none.toml: no such cluster file"),
        (("--scheduler", "tls://127.0.0.1:1", "--tls", "none"), "none/ca.pem: no such file; --tls takes a folder with"),
    ],
)
def test_what_cannot_be_reached_is_one_line(refused, tmp_path, monkeypatch, given, answer):
    monkeypatch.setattr(clusters, "CONNECT", 1.0)
    (tmp_path / "grid.toml").write_text(GRID)
    assert answer in refused("run", *options(tmp_path), *given)


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ('system = "slurm"|system = "cron"', "system: Input should be 'slurm' or 'pbs' (found 'cron')"),
        ("jobs = 2|jobs = 0", "jobs: Input should be greater than or equal to 1 (found 0)"),
        ("jobs = 2|jobs = 2\nnodes = 3", "nodes: Extra inputs are not permitted (found 3)"),
        ("cores = 2|cores = 3\nprocesses = 2", "cores: 3, where a multiple of processes (2) belongs"),
        ("cores = 2|cores = 2\nprocesses = 2\ngpu = true", "processes: 2, where 1 belongs: a GPU has one step"),
        ('"4GB"|"4 gigs"', "memory: String should match pattern"),
        ('interface = "lo"|', "interface: Field required"),
        ('interface = "lo"|interface = "lo; rm x"', "interface: String should match pattern"),
        ('interface = "lo"|interface = "lo"\nprologue = ["a\\nb"]', "prologue.0: String should match pattern"),
        ("jobs = 2|jobs =", "not valid TOML"),
    ],
)
def test_a_wrong_cluster_file_is_one_line(refused, tmp_path, change, answer):
    (tmp_path / "grid.toml").write_text(GRID)
    path = tmp_path / "cluster.toml"
    before, _, after = change.partition("|")
    assert before in SLURM
    path.write_text(SLURM.replace(before, after, 1))
    line = refused("run", *options(tmp_path), "--cluster", path, "--dry-run")
    assert f"{path}: " in line
    assert answer in line


@pytest.mark.parametrize("system", ["slurm", "pbs"])
def test_dry_run_prints_the_job_script(emubench, tmp_path, system):
    (tmp_path / "grid.toml").write_text(GRID)
    more = 'queue = "gpu"\naccount = "chaos"\ngpu = true\n'
    more += 'prologue = ["module load python"]\ndirectives = ["--exclusive"]\n'
    (tmp_path / "cluster.toml").write_text(SLURM.replace("slurm", system) + more)
    before = contents(tmp_path)
    finished = emubench("run", *options(tmp_path), "--cluster", tmp_path / "cluster.toml", "--dry-run")
    assert finished.status == 0, finished
    script = finished.out
    assert script.startswith("#!")
    mark = {"slurm": "#SBATCH", "pbs": "#PBS"}[system]
    for line in (
        "--exclusive",
        "-A chaos",
        *(["-p gpu", "--cpus-per-task=2", "--gres=gpu:1"] if system == "slurm" else []),
    ):
        assert f"{mark} {line}\n" in script
    assert "module load python\nexport OMP_NUM_THREADS=2\n" in script
    (command,) = (line for line in script.splitlines() if "dask_worker" in line)
    assert command.startswith(f"{sys.executable} -m distributed.cli.dask_worker tcp://SCHEDULER:PORT ")
    assert command.endswith("--nthreads 1 --resources GPU=1 --interface lo --protocol tcp://")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("system", "more", "without", "words"),
    [
        ("slurm", 'directives = ["--mem-per-cpu=2G"]', "--mem=", "#SBATCH --mem-per-cpu=2G\n"),
        ("slurm", 'directives = ["-n 4", "-t 00:10"]', "-t 01:00:00", "#SBATCH -t 00:10\n"),
        ("slurm", 'leave_out = ["--mem", "--cpus-per-task"]', "--cpus-per-task", "#SBATCH -t 01:00:00\n"),
        ("pbs", 'leave_out = ["-l walltime"]', "walltime", "#PBS -l select"),
        ("slurm", 'local_directory = "/my scratch/a"', "directory /my", "--local-directory '/my scratch/a' "),
    ],
)
def test_clusters_have_directives_left_out_and_folders_quoted(tmp_path, system, more, without, words):
    (tmp_path / "cluster.toml").write_text(SLURM.replace("slurm", system) + more + "\n")
    script = clusters.job_script(tmp_path / "cluster.toml")
    assert without not in script
    assert words in script


def test_clusters_are_refused_folders_that_a_job_script_cannot_hold(refused, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    path = tmp_path / "cluster.toml"
    path.write_text(SLURM + 'log_directory = "my logs"\n')
    asked = ("run", *options(tmp_path), "--cluster", path, "--dry-run")
    assert "log_directory" in refused(*asked)
    path.write_text(SLURM)
    assert "a folder without blanks" in refused(*asked, "--tls", tmp_path / "my keys")


def test_the_page_on_scaling_shows_files_that_are_read_and_the_script_that_is_submitted(emubench, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL)
    files = {text.splitlines()[0].strip("# "): text for kind, text in blocks if kind == "toml"}
    for name in ("grid.toml", "cluster.toml"):
        (tmp_path / name).write_text(files[name])
    finished = emubench("run", *options(tmp_path), "--cluster", tmp_path / "cluster.toml", "--dry-run")
    assert finished.status == 0, finished
    (script,) = (text for _, text in blocks if text.startswith("#!/usr/bin/env bash"))
    assert finished.out.strip().replace(sys.executable, "/shared/emubench/.venv/bin/python") == script.strip()


# --- the real thing ---------------------------------------------------------------------------------------------------


def slow_note(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    time.sleep(0.3)
    (data / f"{os.getpid()} {step.label}").touch()
    return note(step, data, out, threads, debug)


def exclusive(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    """Counts how many steps that ask for a GPU run at a time."""
    mark = data / "busy"
    if step.resources:
        mark.mkdir()  # raises if it is there
    time.sleep(0.1)
    if step.resources:
        mark.rmdir()
    return note(step, data, out, threads, debug)


def failing(step: Step, data: Path, out: Path, threads: int, debug: bool) -> Outcome:
    if step.label == "train x 1":
        os._exit(1)
    return note(step, data, out, threads, debug)


@pytest.mark.slow
@pytest.mark.usefixtures("labelled_steps")
def test_steps_on_two_workers_one_of_which_is_killed_and_a_scheduler_that_goes_away(tmp_path):
    """One start of Dask for many things, for it takes seconds: each has a plan of its own."""
    file = tmp_path / "grid.toml"
    file.write_text(GRID)

    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    with dask(tmp_path / "dask") as made:
        first = made.worker("--resources", "GPU=1")
        with clusters.scheduler(str(made.file)) as place:
            plan = chain(3, file)
            asking = {step: Step(step.kind, step.label, "{}", (("GPU", 1.0),)) for step in plan.steps}
            needs = {asking[s]: tuple(asking[n] for n in plan.needs[s]) for s in plan.steps}
            gpu = plans.Plan(plan.grid, tuple(needs), needs, ())
            made.worker()
            here = folder("gpu")
            run = runner.execute(gpu, place, here, here, 1, work=exclusive)
            assert set(run.state.values()) == {"done"}, run.failed

            here, killed = folder("killed"), []

            def kill(run: runner.Execution) -> None:
                if not killed and sum(state == "done" for state in run.state.values()) >= 3:
                    killed.append(first.pid)
                    first.send_signal(signal.SIGKILL)

            while place.workers() < 2:
                time.sleep(0.1)
            run = runner.execute(chain(8, file), place, here, here, 1, kill, work=slow_note)
            assert killed
            assert set(run.state.values()) == {"done"}, run.failed
            calls = (here / "calls").read_text().splitlines()
            assert len(calls) == len(set(calls)) == 16
            assert len({path.name.split(" ")[0] for path in here.glob("* train x *")} - {"train"}) == 2  # both worked

            here = folder("deadly")
            for _ in range(4):
                made.worker()
            run = runner.execute(chain(3, file), place, here, here, 1, work=failing)
            states = {step.label: state for step, state in run.state.items()}
            assert (states.pop("train x 1"), states.pop("score x 1")) == ("failed", "not run")
            assert set(states.values()) == {"done"}
            assert "KilledWorker" in next(iter(run.failed.values())).error

            here = folder("gone")
            made.worker()

            def stop(run: runner.Execution) -> None:
                if made.scheduler.poll() is None and "done" in run.state.values():
                    made.scheduler.kill()

            with pytest.raises(EmubenchError, match=f"{made.address}: the scheduler is gone; start it"):
                runner.execute(chain(8, file), place, here, here, 1, stop, work=slow_note)


@pytest.mark.slow
def test_a_grid_on_dask_with_a_killed_worker_gives_the_same_files(whole_grid, tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    data, out = tmp_path / "data", tmp_path / "runs"
    plan = plans.expand(tmp_path / "grid.toml", data)
    with dask(tmp_path / "dask") as made:
        workers, killed = [made.worker(), made.worker()], []

        def kill(run: runner.Execution) -> None:
            busy = any(step.kind == "train" and state == "done" for step, state in run.state.items())
            if busy and not killed:
                killed.append(True)
                workers[0].send_signal(signal.SIGKILL)

        with clusters.scheduler(made.address) as place:
            while place.workers() < 2:
                time.sleep(0.1)
            run = runner.execute(plan, place, data, out, 1, kill)
        assert killed
        assert workers[0].wait() == -signal.SIGKILL
        assert set(run.state.values()) == {"done"}, run.failed
    assert contents(data) == contents(whole_grid / "data")
    assert results(out) == results(whole_grid / "runs")
    assert len(list(out.rglob("scores.json"))) == 8


# --- TLS --------------------------------------------------------------------------------------------------------------


def certificates(folder: Path) -> Path:
    """A certificate authority of the test's own, and one certificate that it signed."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "member")]
    for key, name, file in zip(keys, names, ("ca.pem", "cert.pem"), strict=True):
        made = x509.CertificateBuilder().subject_name(name).issuer_name(names[0]).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(datetime.now(UTC) - timedelta(days=1))
        made = made.not_valid_after(datetime.now(UTC) + timedelta(days=1))
        made = made.add_extension(x509.BasicConstraints(ca=file == "ca.pem", path_length=None), critical=True)
        signed = made.sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, form, plain))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("labelled_steps")
def test_tls_lets_in_who_has_a_certificate_of_the_same_authority_and_no_one_else(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT", 10.0)
    (tmp_path / "grid.toml").write_text(GRID)
    ours, theirs = certificates(tmp_path / "ours"), certificates(tmp_path / "theirs")
    files = zip(("--tls-ca-file", "--tls-cert", "--tls-key"), clusters.TLS_FILES, strict=True)
    given = [part for option, name in files for part in (option, str(ours / name))]
    with dask(tmp_path / "dask", "--protocol", "tls", *given) as made:
        made.worker()
        assert made.address.startswith("tls://127.0.0.1:")
        with clusters.scheduler(str(made.file), ours) as place:
            run = runner.execute(chain(2, tmp_path / "grid.toml"), place, tmp_path, tmp_path, 1, work=note)
        assert set(run.state.values()) == {"done"}
        for address, tls in ((made.address, theirs), (made.address, None), (made.address.replace("tls", "tcp"), None)):
            with pytest.raises(EmubenchError, match="no Dask scheduler answers"), clusters.scheduler(address, tls):
                pass


# --- batch jobs -------------------------------------------------------------------------------------------------------


SBATCH = """#!{python}
import pathlib, re, subprocess, sys
here = pathlib.Path(__file__).parent
script = pathlib.Path(sys.argv[1]).read_text()
n = len(list(here.glob("*.sh"))) + 1
(here / f"{{n}}.sh").write_text(script)
log = (here / f"{{n}}.log").open("wb")
job = subprocess.Popen(["bash", str(here / f"{{n}}.sh")], stdout=log, stderr=log, start_new_session=True)
(here / f"{{n}}.pid").write_text(str(job.pid))
print("Submitted batch job", n)
"""
SCANCEL = """#!{python}
import os, pathlib, signal, sys
for job in sys.argv[1:]:
    os.killpg(int((pathlib.Path(__file__).parent / f"{{job}}.pid").read_text()), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("labelled_steps")
def test_batch_jobs_are_submitted_work_and_are_cancelled(tmp_path, monkeypatch):
    """``sbatch`` stands in here for SLURM's: it runs the script at once, on this machine."""
    (tmp_path / "grid.toml").write_text(GRID)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (commands / name).write_text(text.format(python=sys.executable))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*SEES, os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "cluster.toml").write_text(SLURM + f'local_directory = "{tmp_path}"\n')
    with clusters.batch(tmp_path / "cluster.toml") as place:
        run = runner.execute(chain(3, tmp_path / "grid.toml"), place, tmp_path, tmp_path, 1, work=note)
        assert set(run.state.values()) == {"done"}, run.failed
        while place.workers() < 2:
            time.sleep(0.1)
    scripts = sorted(commands.glob("*.sh"))
    assert len(scripts) == 2
    assert all("tcp://127.0.0.1:" in script.read_text() for script in scripts)
    end = time.monotonic() + 20
    for pid in map(int, (path.read_text() for path in commands.glob("*.pid"))):
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            assert time.monotonic() < end
            time.sleep(0.1)
