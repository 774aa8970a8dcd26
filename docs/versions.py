"Run the tests on each Python that the README names and this machine has, in clones with a .venv of their own"

import argparse, os, re, shutil, subprocess, sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent


def named():
    "Versions that the README names: `Python 3.11 to 3.13` is 3.11, 3.12 and 3.13"
    first, last = re.search(r'Python 3\.(\d+) to 3\.(\d+)', (ROOT / 'README.md').read_text()).groups()
    return [f'3.{minor}' for minor in range(int(first), int(last) + 1)]


def runs(python, version):
    "Whether this is a Python of the version; a shim of pyenv's may stand for none"
    code = 'import sys; print("%d.%d" % sys.version_info[:2])'
    done = subprocess.run([python, '-c', code], capture_output=True, text=True)
    return done.stdout.strip() == version


def installed(version):
    "A Python of this version: on the path, or pyenv's; None if there is neither"
    pyenv = Path(os.environ.get('PYENV_ROOT', '~/.pyenv')).expanduser()
    pythons = [shutil.which(f'python{version}'), *pyenv.glob(f'versions/{version}.*/bin/python')]
    return next((p for p in pythons if p and runs(p, version)), None)


def test(python):
    "The status of the README's test command on a clone"
    with TemporaryDirectory() as folder:
        subprocess.run(['git', 'clone', '--quiet', ROOT, folder], check=True)
        return subprocess.run(['make', 'test', f'PYTHON={python}'], cwd=folder).returncode


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    said = {}
    for version in named():
        python = installed(version)
        print(f'Python {version}: {python or "not installed"}', flush=True)
        said[version] = 'not installed' if python is None else ('passed', 'failed')[test(python) != 0]
    print(*(f'Python {version}: {word}' for version, word in said.items()), sep='\n')
    sys.exit('failed' in said.values() or 'passed' not in said.values())


if __name__ == '__main__':
    main()
