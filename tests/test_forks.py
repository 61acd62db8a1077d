"""Programs in forks: what they are given, do and leave behind is that of a process of its own."""

import os
import subprocess
import sys

import forks
import pytest

SIGNALS = (
    "fields = dict(line.split(':') for line in open('/proc/self/status'))\n"
    "print([int(fields[name], 16) % 2**31 for name in ('SigIgn', 'SigCgt')])"
)
"""Those that it ignores and handles as the system knows them; behind 31 are the C library's own."""
PROGRAMS = {
    "arguments and streams": "import sys; print(sys.argv, sys.stdin.read()); print('é', file=sys.stderr)",
    "folder and environment": "import os, sys; print(sys.path[0], os.getcwd(), os.environ['GIVEN'])",
    "the main module": "import sys; print(__name__, sys.modules['__main__'].__name__, 'small' in sys.modules)",
    "no terminal": "import sys; print([stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)])",
    "an error": "print('before'); 1 / 0",
    "an exit with a sentence": "import sys; sys.exit('what is wrong')",
    "an exit with a number": "raise SystemExit(3)",
    "what is done at the end": "import atexit; atexit.register(print, 'after'); print('before')",
    "what is wrong at the end": "class Wrong:\n    def __del__(self): 1 / 0\nkept = Wrong()",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "signals": SIGNALS,
    "signals of a process of its own": (
        "import signal, subprocess, sys; signal.signal(signal.SIGTERM, print)\n"
        f"signal.signal(signal.SIGUSR1, signal.SIG_IGN); code = {SIGNALS!r}\n"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True).stdout)"
    ),
    "a folder of its own": "import small",
    "a process of its own": (
        "import os, subprocess, sys; print('before')\n"
        "code = 'import os, sys; print(sys.argv, sys.stdin.read(), len(os.environ.get(\"GIVEN\")), os.getcwd())'\n"
        "code += '; print(os.environ.get(\"HOME\")); sys.exit(3)'\n"
        "given = {'input': 'naïve', 'env': {'GIVEN': 'é'}, 'cwd': '/'}\n"
        "ended = subprocess.run([sys.executable, '-c', code, 'a'], capture_output=True, text=True, **given)\n"
        "print(ended.returncode, ended.stdout, ended.stderr)"
    ),
    "a process of its own that is killed": (
        "import subprocess, sys\n"
        "code = 'import time; print(1, flush=True); time.sleep(999)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline()); child.terminate(); print(child.wait())"
    ),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_fork_is_as_a_process_of_its_own(program, tmp_path):
    arguments = ["-c", program, "A film.", "--option"]
    given = {"cwd": tmp_path, "env": {**os.environ, "GIVEN": "é 映画"}}
    found = forks.run(arguments, stdin="naïve\n", **given)
    command = [sys.executable, *arguments]
    expected = subprocess.run(command, input="naïve\n", capture_output=True, text=True, check=False, **given)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    assert found.stderr.splitlines()[-1:] == expected.stderr.splitlines()[-1:]


def test_a_worker_is_as_in_a_process_of_its_own():
    """Without what stands in for others in programs."""
    code = (
        "import multiprocessing as several, subprocess, sys; print(sys.argv, sys.stdin.read(), __name__, flush=True)\n"
    )
    code += "print(hasattr(sys.modules['__main__'], '__file__'), several.get_context('spawn'))\n"
    code += "print(subprocess.Popen.__init__.__module__, file=sys.stderr)\nsys.exit(3)"
    commands = [[sys.executable, *program, "-u", "-c", code] for program in ([forks.__file__], [])]
    options = {"input": "naïve", "capture_output": True, "text": True}
    found, expected = (subprocess.run(command, check=False, **options) for command in commands)
    without_place = [done.stdout.partition(" object at")[0] for done in (found, expected)]
    assert without_place[0] == without_place[1]
    assert (found.returncode, found.stderr) == (expected.returncode, expected.stderr) == (3, "subprocess\n")


def test_what_is_printed_to_nobody_is_an_error_at_the_end():
    nobody_reads = "import select; output = select.poll(); output.register(1, 0); output.poll()\n"
    found = forks.run(["-c", nobody_reads + "print('lost')"], read=lambda pipe: "")
    assert "BrokenPipeError" in found.stderr
    assert found.returncode != 0


def test_forks_know_nothing_of_each_other():
    assert (
        forks.run(["-c", "import os, sys; sys.modules['torch'].changed = os.environ['CHANGED'] = 'yes'"]).returncode
        == 0
    )
    later = "import os, sys; print(hasattr(sys.modules['torch'], 'changed'), 'CHANGED' in os.environ)"
    assert forks.run(["-c", later]).stdout == "False False\n"
