"""Programs as processes: started, listened to, ended; each has a home of its own."""

import os
import queue
import signal
import subprocess
import sys
import threading

LINE_SECONDS = 30.0
END_SECONDS = 12.0


class Running:
    """One process of the program."""

    def __init__(self, home, *arguments, cwd=None, is_read=True, **environment):
        variables = {k: v for k, v in os.environ.items() if not k.startswith("BYTESTAG")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bytestag", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            text=True,
            env={**variables, "BYTESTAG_HOME": str(home), **environment},
        )
        self.lines = {"stdout": queue.Queue(), "stderr": queue.Queue()}
        self.heard = []
        self.threads = [
            threading.Thread(target=self._listen, args=(name,), daemon=True)
            for name in self.lines
            if is_read or name == "stderr"
        ]
        for thread in self.threads:
            thread.start()

    def _listen(self, name):
        with getattr(self.process, name) as stream:
            for line in stream:
                self.heard.append((name, line))
                self.lines[name].put(line.rstrip("\n"))
        self.lines[name].put(None)

    def line(self, containing="", stream="stdout"):
        """Return the next line with a text in it."""
        while True:
            try:
                line = self.lines[stream].get(timeout=LINE_SECONDS)
            except queue.Empty:
                line = None
            assert line is not None, f"no line with {containing!r}: {self.heard}"
            if containing in line:
                return line

    def rest(self, stream="stdout"):
        """Return the lines up to the end of the process."""
        lines = []
        while (line := self.lines[stream].get(timeout=LINE_SECONDS)) is not None:
            lines.append(line)
        return lines

    def end(self, number=signal.SIGTERM):
        """End the process by a signal; return its exit code."""
        self.process.send_signal(number)
        return self.code(END_SECONDS)

    def code(self, seconds=LINE_SECONDS * 2):
        """Wait for the end; return the exit code."""
        code = self.process.wait(seconds)
        for thread in self.threads:
            thread.join(seconds)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.code()


class Programs:
    """Starts programs, each with a home below one directory; ends those that still run."""

    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def home(self, name):
        return self.directory / "homes" / name

    def start(self, home, *arguments, **options):
        program = Running(self.home(home), *arguments, **options)
        self.running.append(program)
        return program

    def node(self, home, *arguments):
        """Start a node; return it and its address, once it is up."""
        node = self.start(home, "node", "--host", "127.0.0.1", "--cache-size", "64MiB", *arguments)
        return node, node.line()

    def run(self, home, *arguments, **options):
        """Run a program to its end; return its exit code, its answer's lines, and the others."""
        program = self.start(home, *arguments, **options)
        code = program.code()
        return code, program.rest(), program.rest("stderr")

    def close(self):
        for program in self.running:
            program.close()
