"""Programs, and pytest's workers, in forks of one process that has imported what they import: they start at once.

A fork has imported more than a process of its own would, and has read its environment earlier; what it starts through
multiprocessing, or as Python with a program, are forks as well. So each kind of program, the command, a script and
``python -c``, is started in one test as a user starts it. All else is the program's own: arguments, folder,
environment, streams, and an end in which Python writes what is left and says what is wrong with it.
"""

import atexit
import gc
import importlib
import inspect
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import interpreter

EXPLAINING = ["hf_mambalrp.ops.gated_scan.compiled", "transformers.models.mamba.modeling_mamba"]
"""What an explanation of a Mamba uses, on a CPU."""
IMPORTED = ["hf_mambalrp.cli.main", "hf_mambalrp.evaluation.evaluator", "datasets", "matplotlib.backends.backend_svg"]
IMPORTED += ["matplotlib.pyplot", "pandas", "pyarrow.parquet", "scipy.stats", "transformers.models.mamba2"]
"""What programs use beside the names that the package offers."""
OPTIONAL = ["gradio", "pdoc", "peft"]
"""What some programs use, and may be missing."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
"""Read when torch is imported: tiny tensors are many times slower on two threads of a shared machine."""
NAME = "\0" + os.environ.setdefault("FORKS", f"forks-{os.getpid()}")
"""Of the socket, in the processes of a run."""
WORKER = "-u"
"""What execnet starts a worker with."""


of_this_thread = threading.local()


def server():
    """This thread's connection to the process that forks, which is one for all workers of a run."""
    if not hasattr(of_this_thread, "connection"):
        started()
        of_this_thread.connection = connected()
    return of_this_thread.connection


@cache
def started():
    """A connection of this worker's: the process ends with the last that there is."""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(NAME)  # which another worker may have
        listener.listen()
        command, variables = [sys.executable, __file__], {**os.environ, **ONE_THREAD}
        subprocess.Popen(command, stdin=listener, stdout=subprocess.DEVNULL, env=variables)
    return connected()


def connected():
    here = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.connect(NAME)
    return here


def in_a_fork(arguments):
    """The end of ``python ARGUMENTS`` in a fork that has the streams of this process."""
    socket.send_fds(server(), [json.dumps([arguments, str(Path.cwd()), dict(os.environ)]).encode()], range(3))
    server().recv(16)
    return int(server().recv(16))


def whole(pipe):
    return pipe.read()


def run(arguments, *, stdin="", cwd=None, env=None, read=whole, begun=None):
    """As ``subprocess.run([sys.executable, *arguments], input=stdin, capture_output=True, text=True, ...)``.

    ``read`` is what is done with the end of the pipe that standard output goes to, ``begun`` with the process id.
    """
    program = [list(map(str, arguments)), str(cwd or Path.cwd()), {**(env or os.environ), **ONE_THREAD}]
    (theirs, ours), *outputs = (os.pipe() for _ in range(3))
    streams = [theirs, *(end for _, end in outputs)]
    with open(ours, "w", encoding="utf-8") as pipe:
        pipe.write(stdin)
    socket.send_fds(server(), [json.dumps(program).encode()], streams)
    for stream in streams:
        os.close(stream)
    process = int(server().recv(16))
    if begun:
        begun(process)

    def said(output, read):
        with open(output[0], encoding="utf-8") as pipe:
            return read(pipe)

    with ThreadPoolExecutor() as pool:
        printed = pool.map(said, outputs, [read, whole])
        return subprocess.CompletedProcess(arguments, int(server().recv(16)), *printed)


def serve_all(listener):
    """:func:`serve` in a fork for each connection, until all that there were have ended."""
    while True:
        if select.select([listener], [], [], 1)[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return serve(connection)
            connection.close()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            continue
        return None


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
        connection.send(str(child).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(ConnectionError):  # of one that has gone meanwhile, as pytest lets go of its workers
            connection.send(str(code).encode())


class TheEnd:
    """Closes standard error when Python has written all that it has to say: the names in sys are forgotten last.

    What is frozen is never freed, and nanobind would then write that all of triton leaked.
    """

    def __del__(self, close=os.close):
        close(2)


def become(arguments, cwd, env):
    """Do what ``python ARGUMENTS`` does once it has started, and end as it does."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    importlib.reload(sys.modules["huggingface_hub.constants"])  # which are variables of the environment
    if arguments[0] == WORKER:  # in which all is as in a process of its own
        sys.argv, sys.modules["__main__"] = arguments[1:2], types.ModuleType("__main__")
        atexit.register(gc.unfreeze)  # of what is never freed nanobind says that it leaked, and triton is built with it
        return exec(arguments[2], vars(sys.modules["__main__"]))
    inspect.stack.__defaults__ = (0,)  # of names alone: lines of source are looked for in all modules there are
    forks = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method: forks
    subprocess.Popen.__init__ = popen  # some have imported the class by its name
    if not hasattr(sys, "the_end"):  # in a program of a program it is that one's
        sys.the_end = TheEnd()
    try:
        run_as_main(arguments, cwd)
    except SystemExit as stopped:
        if isinstance(stopped.code, str):
            raise
        end(stopped.code or 0)
    end(0)


def popen(self, args, *rest, env=None, of_any_program=subprocess.Popen.__init__, **options):
    """A process of Python is a fork, which takes its streams and its folder as any other before it begins."""
    if args[0] == sys.executable:
        sys.stdout.flush()
        sys.stderr.flush()  # what is not written yet would be written by both
        arguments = [*args[2:]] if args[1] == "-u" else args[1:]  # all is written at the end
        options["preexec_fn"] = partial(instead, arguments, env or os.environ)
        options["restore_signals"] = False  # Python, which does not begin anew here, ignores some: SIGPIPE would end it
    of_any_program(self, args, *rest, env=env, **options)


def instead(arguments, env):
    """Never to come to the command itself."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # one of which tells subprocess that the command has begun
    atexit._clear()
    for one in signal.valid_signals():
        if callable(signal.getsignal(one)):  # what the program does about a signal is its own
            signal.signal(one, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        become(arguments, str(Path.cwd()), dict(env))
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def run_as_main(arguments, cwd):
    """The program, with the names and paths that it has."""
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


def end(code):
    """What Python does at the end, but for taking apart what is imported: most of the time of a short program.

    Where something cannot be written Python finds it out again, and says so.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # what the program had
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def explain():
    """Explain something, which imports what ops use and compiles the kernels of a CPU, or reads what is compiled.

    Without GPUs alone, whose threads of autograd forks would not have.
    """
    import torch
    from transformers import MambaConfig

    from hf_mambalrp import MambaLRPForCausalLM

    if "TRITON_INTERPRET" in os.environ:  # tests/conftest.py has looked
        config = MambaConfig(vocab_size=9, hidden_size=8, state_size=4, num_hidden_layers=1)
        MambaLRPForCausalLM(config).explain(torch.tensor([[1, 2, 3]]), backend="compiled")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(in_a_fork(sys.argv[1:]))
    sys.path[0] = ""  # not the tests' folder, which holds no module of any program's
    gc.disable()  # modules are no garbage: tests/conftest.py
    for name in EXPLAINING:
        importlib.import_module(name)
    compiling = multiprocessing.get_context("fork").Process(target=explain)  # a new clone has nothing compiled
    compiling.start()
    for name in IMPORTED:
        importlib.import_module(name)
    for name in OPTIONAL:
        with suppress(Exception):  # missing, or of a release that does not go with the others
            importlib.import_module(name)
    package = sys.modules["hf_mambalrp"]
    for name in package.__all__:
        getattr(package, name)
    interpreter.patch()
    compiling.join()
    explain()
    for one in weakref.finalize._registry:  # what libraries tidy up at their end is this process's own, not a fork's
        one.atexit = False
    gc.freeze()  # otherwise the end of each fork looks through it all, a second
    gc.set_threshold(20_000)
    gc.enable()
    if program := serve_all(socket.socket(fileno=os.dup(0))):
        become(*program)
    os._exit(0)  # nothing is left to write, and what is frozen would look leaked
