"""What pyproject.toml cannot say: a wheel holds the files of ``spaces_app/``, which ``create_space`` copies."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = sorted(path for path in Path("spaces_app").iterdir() if path.is_file())


class BuildPy(build_py):
    """The build of the package, with the Space's own files beside the app that they start."""

    def run(self):
        """Build; an editable install reads the folder where it is."""
        super().run()
        if not self.editable_mode:
            template = Path(self.build_lib, "hf_mambalrp", "space", "template")
            self.mkpath(str(template))
            for path in FILES:
                self.copy_file(str(path), str(template / path.name))

    def get_source_files(self):
        """Return what a source archive holds."""
        return [*super().get_source_files(), *map(str, FILES)]


setup(cmdclass={"build_py": BuildPy})
