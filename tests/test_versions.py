"The versions of Python: README, settings, workflow and `make versions` mean the same ones"

import configparser, sys

import yaml
from versions import installed, named, runs

from conftest import ROOT


def test_workflow_runs_the_readmes_test_command_on_each_version_it_names():
    assert '\n    make test ' in (ROOT / 'README.md').read_text()
    jobs = yaml.safe_load((ROOT / '.github' / 'workflows' / 'test.yml').read_text())['jobs']
    assert jobs['test']['strategy']['matrix']['python'] == named()
    assert dict(run='make test') in jobs['test']['steps']


def test_settings_name_the_first():
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'settings.ini')
    assert settings['DEFAULT']['min_python'] == named()[0]


def test_a_python_is_found_by_its_version():
    here = f'{sys.version_info.major}.{sys.version_info.minor}'
    assert here in named() and runs(sys.executable, here)
    assert not runs(sys.executable, '2.7')
    assert installed('2.99') is None


def test_a_shim_that_stands_for_nothing_is_passed_over(tmp_path, monkeypatch):
    shim = tmp_path / 'python3.11'
    shim.write_text('#!/bin/sh\nexit 127\n')
    shim.chmod(0o755)
    python = tmp_path / 'versions' / '3.11.7' / 'bin' / 'python'
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho 3.11\n')
    python.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path))
    assert installed('3.11') == python
