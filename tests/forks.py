"""Programs in forks of one process that has imported what they import: they start at once, not after seconds.

A fork has imported more than a process of its own would, and has read its environment earlier; what it starts through
multiprocessing are forks as well. So each kind of program, the command, a script and ``python -c``, is started in one
test as a user starts it. All else is the program's own: arguments, folder, environment, streams, and an end in which
Python writes what is left and says what is wrong with it.
"""

import gc
import importlib
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

IMPORTED = ["hf_mambalrp.cli.main", "hf_mambalrp.evaluation.evaluator", "hf_mambalrp.ops.gated_scan.compiled"]
IMPORTED += ["datasets", "matplotlib.pyplot", "pandas", "pyarrow.parquet", "transformers.models.mamba2"]
"""What programs use beside the names that the package offers."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Read when torch is imported: tiny tensors are many times slower on two threads of a shared machine."""


@cache
def server():
    """The connection to the process that forks, which ends with this one."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command, variables = [sys.executable, __file__], {**os.environ, **ONE_THREAD}
    subprocess.Popen(command, stdin=there, stdout=subprocess.DEVNULL, env=variables)
    there.close()
    return here


def whole(pipe):
    return pipe.read()


def run(arguments, *, stdin="", cwd=None, env=None, read=whole):
    """As ``subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, text=True, ...)``.

    ``read`` is what is done with the end of the pipe that standard output goes to.
    """
    program = [list(map(str, arguments)), str(cwd or Path.cwd()), {**(env or os.environ), **ONE_THREAD}]
    (theirs, ours), *outputs = (os.pipe() for _ in range(3))
    streams = [theirs, *(end for _, end in outputs)]
    with open(ours, "w", encoding="utf-8") as pipe:
        pipe.write(stdin)
    socket.send_fds(server(), [json.dumps(program).encode()], streams)
    for stream in streams:
        os.close(stream)

    def said(output, read):
        with open(output[0], encoding="utf-8") as pipe:
            return read(pipe)

    with ThreadPoolExecutor() as pool:
        printed = pool.map(said, outputs, [read, whole])
        return subprocess.CompletedProcess(arguments, int(server().recv(16)), *printed)


def serve(connection):
    """In each fork the program that it is to be; None where no more can come."""
    while True:
        program, streams, *_ = socket.recv_fds(connection, 2**18, 3)
        if not program:
            return None
        child = os.fork()
        if child == 0:
            connection.close()
            for place, stream in enumerate(streams):
                os.dup2(stream, place)
                os.close(stream)
            return json.loads(program)
        for stream in streams:
            os.close(stream)
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


class TheEnd:
    """Closes standard error when Python has written all that it has to say: the names in sys are forgotten last.

    What is frozen is never freed, and nanobind, which triton is built with, would then write that all of triton leaked.
    """

    def __del__(self, close=os.close):
        close(2)


def become(arguments, cwd, env):
    """Do what ``python ARGUMENTS`` does once it has started."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    importlib.reload(sys.modules["huggingface_hub.constants"])  # which are variables of the environment
    forks = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method: forks
    sys.the_end = TheEnd()
    first, *rest = arguments
    if first == "-c":
        sys.argv, sys.path[0] = [first, *rest[1:]], ""
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif first == "-m":
        sys.argv, sys.path[0] = rest, cwd
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = arguments, str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = ""  # not the tests' folder, which holds no module of any program's
    for name in IMPORTED:
        importlib.import_module(name)
    package = sys.modules["hf_mambalrp"]
    for name in package.__all__:
        getattr(package, name)
    gc.freeze()  # otherwise the end of each fork looks through it all, a second
    if program := serve(socket.socket(fileno=os.dup(0))):
        become(*program)
