from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
README = (HERE / "README.rst").read_text(encoding="utf-8")
# A package index has the text alone: its page would show the picture as a broken one.
DESCRIPTION = re.sub(r"\.\. image::.*\n(?: .*\n)*\n", "", README)


class BuildWithStubs(build_py):
    """Put the types beside the module.

    A type checker believes an installed module only when a ``py.typed`` marks it, and only a
    package, as ``_flask_pusher`` is one, can carry that. A stub package (PEP 561) needs no mark,
    so the module is built a second time as ``flask_pusher-stubs/__init__.pyi``: one source, two
    files.

    An editable install has no stubs: a copy would not follow the module while it is edited.
    """

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.mkpath(str(Path(self._stubs).parent))
            self.copy_file("flask_pusher.py", self._stubs)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, self._stubs]

    @property
    def _stubs(self) -> str:
        """Where in the build the types go."""
        return str(Path(self.build_lib, "flask_pusher-stubs", "__init__.pyi"))


setup(
    name="Flask-Pusher",
    version="4.0.0",
    description="Pusher Channels for Flask: publish, authorise and hear back, in three decorators",
    long_description=DESCRIPTION,
    long_description_content_type="text/x-rst",
    author="The Flask-Pusher authors",
    license_expression="MIT",
    license_files=["LICENSE"],
    keywords=["flask", "pusher", "channels", "realtime", "websocket"],
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: 3.15",
        "Topic :: Internet :: WWW/HTTP :: Dynamic Content",
        "Topic :: Software Development :: Libraries :: Python Modules",
        "Typing :: Typed",
    ],
    python_requires=">=3.9",
    py_modules=["flask_pusher"],
    packages=["_flask_pusher", "_flask_pusher.local", "_flask_pusher.page"],
    package_data={
        "_flask_pusher": ["py.typed"],
        "_flask_pusher.local": ["page.css", "page.html", "page.js"],
        "_flask_pusher.page": ["page.js"],
    },
    install_requires=["Flask>=2.3.3", "pusher>=3.3.3"],
    extras_require={
        "async": ["Flask[async]>=2.3.3"],
        "local": ["aiohttp>=3.10.11", "wsproto>=1.2.0"],
    },
    cmdclass={"build_py": BuildWithStubs},
)
