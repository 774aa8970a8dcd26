"What holds the notebooks, the package, the README and the presets together"

import ast, importlib, inspect, json, re, shutil, subprocess, sys

import nbformat, pytest
from fastcore.docments import docments

from conftest import BIN, ROOT
from dda_nb.pipeline import Config

MODULES = [p.stem for p in sorted((ROOT / 'dda_nb').glob('[a-z]*.py'))]
NOTEBOOKS = sorted(f for f in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in f.parts)


def test_package_is_what_the_notebooks_export(tmp_path):
    shutil.copytree(
        ROOT,
        tmp_path / 'repo',
        symlinks=True,
        ignore=shutil.ignore_patterns('.venv', '.git', 'runs', 'results', 'build'),
    )
    for f in (tmp_path / 'repo' / 'dda_nb').glob('[a-z]*.py'):
        f.unlink()
    subprocess.run([BIN / 'nbdev-export'], cwd=tmp_path / 'repo', check=True, capture_output=True)
    for name in MODULES:
        assert (tmp_path / 'repo' / 'dda_nb' / f'{name}.py').read_text() == (
            ROOT / 'dda_nb' / f'{name}.py'
        ).read_text(), name


def test_modules_read_only_what_they_define():
    done = subprocess.run([sys.executable, '-m', 'pyflakes', ROOT / 'dda_nb'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_modules_import_only_from_lower_numbers():
    order = {p.stem[3:]: int(p.stem[:2]) for p in NOTEBOOKS if p.stem[:2].isdigit()}
    assert sorted(order) == sorted(MODULES)
    for name in MODULES:
        used = re.findall(r'^from \.(\w+) import', (ROOT / 'dda_nb' / f'{name}.py').read_text(), re.M)
        assert all(order[u] < order[name] for u in used), name


@pytest.mark.parametrize('name', MODULES)
def test_every_public_name_is_documented(name):
    module = importlib.import_module(f'dda_nb.{name}')
    for public in module.__all__:
        thing = getattr(module, public)
        if not callable(thing):
            continue
        assert vars(thing)['__doc__'] if inspect.isclass(thing) else thing.__doc__, public
        assert not inspect.isclass(thing) or not thing.__doc__.startswith(f'{public}('), (
            f'{public} has a generated docstring'
        )
        if (
            inspect.isfunction(thing)
            or inspect.isclass(thing)
            and '__init__' in vars(thing)
            and not issubclass(thing, Exception)
        ):
            named = [
                k
                for k, p in inspect.signature(thing).parameters.items()
                if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
            ]
            missing = [k for k, d in docments(thing, full=True).items() if k in named and not d.docment]
            assert not missing, (public, missing)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_clean(path):
    text = path.read_text()
    nb = json.loads(text)
    nbformat.validate(nb)
    assert len(text) < 300_000 and 'widget-view' not in text
    assert not [o for c in nb['cells'] for o in c.get('outputs', []) if o['output_type'] == 'error']
    head = next(c for c in nb['cells'] if c['cell_type'] == 'markdown')
    assert (
        len(''.join(head['source']).splitlines()) <= 3
    )  # title and subtitle; nbdev drops what follows them in one cell
    assert not re.search(r'(?<![\w.])/(home|root|tmp|work|Users)/', text)


@pytest.mark.parametrize('path', [p for p in NOTEBOOKS if p.stem[:2].isdigit()], ids=lambda p: p.stem)
def test_imports_stand_alone(path):
    "The site executes cells that import something, and needs nothing else of them"
    for cell in json.loads(path.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or source.startswith('#| export'):
            continue
        body = ast.parse(source).body
        imports = [isinstance(n, (ast.Import, ast.ImportFrom)) for n in body]
        assert all(imports) or not any(
            isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(ast.parse(source))
        ), source


def test_experiments_have_parameters_named_as_the_configuration():
    for path in (ROOT / 'nbs' / 'experiments').glob('*.ipynb'):
        cells = [
            c for c in json.loads(path.read_text())['cells'] if 'parameters' in c['metadata'].get('tags', [])
        ]
        assert len(cells) == 1, path
        names = re.findall(r'^(\w+)\s*=', ''.join(cells[0]['source']), re.M)
        if path.stem == 'dda':
            assert names == ['preset', 'out', *[k for k in Config.__dataclass_fields__ if k != 'preset']]


def test_readme_is_the_index_notebook(tmp_path):
    "`make readme` writes it"
    subprocess.run(
        [
            BIN / 'jupyter',
            'nbconvert',
            '--log-level=ERROR',
            '--to',
            'markdown',
            '--no-input',
            '--output-dir',
            tmp_path,
            '--output',
            'README',
            ROOT / 'nbs' / 'index.ipynb',
        ],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / 'README.md').read_text().replace('](images/', '](nbs/images/') == (
        ROOT / 'README.md'
    ).read_text(), 'README.md is not what nbs/index.ipynb gives: make readme'


def test_readme_code_runs():
    "The stages as the README shows them, with smaller numbers"
    code = re.search(r'```python\n(from dda_nb.*?)```', (ROOT / 'README.md').read_text(), re.S)[1]
    small = {
        'train_teacher(data)': 'train_teacher(data, epochs=3)',
        'n=1024': 'n=40, steps=10',
        'train_prior(bank)': 'train_prior(bank, steps=10)',
        'bank + kept)': 'bank + kept, steps=20)',
    }
    for a, b in small.items():
        assert a in code
        code = code.replace(a, b)
    names = {}
    exec(code, names)
    assert set(names['judge'](names['result'].student, names['teacher'], names['data'].test)) == {
        'agreement',
        *(f'{who}_{k}' for who in ('teacher', 'student') for k in ('acc', 'top5', 'ece')),
    }


def test_importing_is_cheap():
    "All modules together add at most half a second to importing torch, and load nothing heavy"
    script = f'''import sys, time, torch
start = time.perf_counter()
import {', '.join(f'dda_nb.{m}' for m in MODULES)}
print(time.perf_counter() - start)
print(*sys.modules)'''
    runs = [
        subprocess.run(
            [sys.executable, '-c', script], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(5)
    ]
    assert min(float(r[0]) for r in runs) <= 0.5  # the least disturbed one
    heavy = {
        'torchvision',
        'sklearn',
        'matplotlib',
        'papermill',
        'diffusers',
        'open_clip',
        'datasets',
        'accelerate',
        'ray',
        'pandas',
        'IPython',
        'timm',
        'onnx',
        'onnxruntime',
        'huggingface_hub',
    }
    assert not heavy & set(runs[0][1].split())
