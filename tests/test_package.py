"What holds the notebooks, the package, the README and the presets together"

import ast, importlib, inspect, json, re, subprocess, sys

import nbformat, pytest, torch.nn as nn, yaml
from exported import differing
from fastcore.docments import docments

from conftest import BIN, ROOT
from dda_nb.runs import parameters_cell

PACKAGE = ROOT / 'dda_nb'
NOTEBOOKS = sorted(f for f in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in f.parts)
FOLDERS = (
    'core data models bank synthesis augmentation filtering distillation evaluation runs sweeps widgets toys'
).split()


def exported(notebook):
    "The module that a notebook exports to, without the package's name; empty for none"
    text = ''.join(json.loads(notebook.read_text())['cells'][0]['source'])
    return m[1] if (m := re.match(r'#\| default_exp (\S+)', text)) else ''


MODULES = {m: f for f in NOTEBOOKS if (m := exported(f))}


def file_of(module):
    return PACKAGE / f'{module.replace(".", "/")}.py'


def test_package_is_what_the_notebooks_export():
    assert differing() == []


def test_every_module_has_a_notebook():
    by_hand = {'__init__', '__main__', '_modidx', 'pipeline'}
    files = {f.relative_to(PACKAGE).with_suffix('') for f in PACKAGE.rglob('*.py') if f.stem not in by_hand}
    assert {'.'.join(f.parts) for f in files} == set(MODULES)


def imports_of(module):
    "Modules of the package that a module imports at its top"
    tree = ast.parse(file_of(module).read_text())
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').startswith('dda_nb.')):
            base = f'dda_nb.{module}'.rsplit('.', node.level)[0] + '.' if node.level else ''
            name = (base + (node.module or '')).strip('.').removeprefix('dda_nb.')
            yield from [name] if name in MODULES else [f'{name}.{a.name}' for a in node.names]


def test_modules_import_only_from_folders_above():
    "And within a folder nothing goes round"
    for module in MODULES:
        folder = FOLDERS.index(module.split('.')[0])
        for other in imports_of(module):
            assert other in MODULES, (module, other)
            assert FOLDERS.index(other.split('.')[0]) <= folder, (module, other)
    seen = {}

    def depth(module, above=()):
        assert module not in above, f'{module} imports itself by way of {above}'
        if module not in seen:
            seen[module] = 1 + max((depth(o, (*above, module)) for o in imports_of(module)), default=0)
        return seen[module]

    assert all(map(depth, MODULES))


def test_no_module_is_called_like_a_name_in_its_folder():
    for folder in FOLDERS[:-1]:
        modules = {
            m.split('.')[1]: importlib.import_module(f'dda_nb.{m}')
            for m in MODULES
            if m.startswith(f'{folder}.')
        }
        names = [n for m in modules.values() for n in m.__all__]
        assert not set(names) & set(modules), folder
        assert len(names) == len(set(names)), (folder, [n for n in names if names.count(n) > 1])


def test_a_folder_offers_the_names_of_its_modules():
    "Also those that lie elsewhere now, and the modules themselves"
    from dda_nb import pipeline, runs, synthesis
    from dda_nb.distillation import export_student, judge, load_student
    from dda_nb.evaluation import judging
    from dda_nb.augmentation import toy_pipeline
    from dda_nb.models import toy_clip
    from dda_nb.synthesis import batchnorms

    assert toy_pipeline and toy_clip and batchnorms
    assert judge is judging.judge and export_student and load_student
    assert pipeline.run_all is runs.run_all and 'synthesize' in dir(synthesis)
    with pytest.raises(ImportError):
        from dda_nb.synthesis import nothing_of_the_kind  # noqa: F401


@pytest.mark.parametrize('name', MODULES)
def test_every_public_name_is_documented(name):
    module = importlib.import_module(f'dda_nb.{name}')
    for public in module.__all__:
        thing = getattr(module, public)
        if not callable(thing):
            continue
        assert vars(thing)['__doc__'] if inspect.isclass(thing) else thing.__doc__, public
        assert not inspect.isclass(thing) or not thing.__doc__.startswith(f'{public}('), (
            public
        )  # a generated one
        if inspect.isfunction(thing) or inspect.isclass(thing) and '__init__' in vars(thing):
            if not (inspect.isclass(thing) and issubclass(thing, BaseException)):
                assert not undocumented(thing), (public, undocumented(thing))


def undocumented(thing):
    "Parameters without a comment; the fields of a stage say what they are in their declaration"
    if getattr(thing, '__dataclass_fields__', None) and all(
        'about' in f.metadata for f in thing.__dataclass_fields__.values()
    ):
        return []
    variadic = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    named = [k for k, p in inspect.signature(thing).parameters.items() if p.kind not in variadic]
    return [k for k, d in docments(thing, full=True).items() if k in named and not d.docment]


def public_methods():
    "(class, name, function, arguments) of each public method, those that `patch` put there among them"
    for module in [importlib.import_module(f'dda_nb.{m}') for m in MODULES]:
        for thing in filter(inspect.isclass, (getattr(module, n) for n in module.__all__)):
            for name, method in vars(thing).items():
                function = getattr(method, '__func__', method)  # of a class method or a static one
                if inspect.isfunction(function) and not name.startswith('_'):
                    arguments = [*inspect.signature(function).parameters]
                    yield thing, name, function, arguments[not isinstance(method, staticmethod) :]


def test_every_argument_of_a_public_method_is_documented():
    "At the first method of its name in a module, or where the method comes from: a base class, or PyTorch"
    said, lacking = set(), {}
    for thing, name, function, arguments in public_methods():
        where, without = (function.__module__, name), undocumented(function)
        said |= {(*where, k) for k in arguments if k not in without}
        if not any(hasattr(base, name) for base in (*thing.__mro__[1:], nn.Module)):
            lacking |= {(*where, k): thing.__name__ for k in arguments if k in without}
    left = sorted(
        f'{module}: {lacking[module, *rest]}.{".".join(rest)}' for module, *rest in lacking.keys() - said
    )
    assert not left, '\n'.join(left)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / 'nbs').as_posix())
def test_notebook_is_clean(path):
    text = path.read_text()
    nb = json.loads(text)
    nbformat.validate(nb)
    assert len(text) < 300_000
    outputs = [o for c in nb['cells'] for o in c.get('outputs', [])]
    assert not [o for o in outputs if o['output_type'] == 'error' or 'widget-view' in json.dumps(o)]
    head = next(c for c in nb['cells'] if c['cell_type'] == 'markdown')
    assert len(''.join(head['source']).splitlines()) <= 3  # nbdev drops what follows title and subtitle
    assert not re.search(r'(?<![\w.])/(home|root|tmp|work|Users)/', text)


@pytest.mark.parametrize('path', MODULES.values(), ids=MODULES)
def test_imports_stand_alone(path):
    "The site executes cells that import something, and needs nothing else of them"
    for cell in json.loads(path.read_text())['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] != 'code' or source.startswith('#| export'):
            continue
        tree = ast.parse(source)
        imports = [isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body]
        inside = any(isinstance(n, (ast.Import, ast.ImportFrom)) for n in ast.walk(tree))
        assert all(imports) or not inside, source


def parameters(path):
    "The cell that papermill fills in"
    cells = json.loads(path.read_text())['cells']
    marked = [''.join(c['source']) for c in cells if 'parameters' in c['metadata'].get('tags', [])]
    assert len(marked) == 1, path
    return marked[0]


def test_experiments_have_parameters_and_ours_are_the_fields():
    for path in (ROOT / 'nbs' / 'experiments').glob('*.ipynb'):
        cell = parameters(path)
        if path.stem == 'dda':
            fresh = 'from dda_nb.runs import parameters_cell; print(parameters_cell(), end="")'
            assert (
                subprocess.run([sys.executable, '-c', fresh], capture_output=True, text=True).stdout == cell
            )
            assert parameters_cell()


def test_every_notebook_is_in_the_sidebar():
    def pages(items):
        for i in items:
            yield from pages(i['contents']) if isinstance(i, dict) and 'contents' in i else [i]

    sidebar = yaml.safe_load((ROOT / 'nbs' / 'sidebar.yml').read_text())['website']['sidebar']['contents']
    listed = [i if isinstance(i, str) else i.get('href') for i in pages(sidebar)]
    assert {f.relative_to(ROOT / 'nbs').as_posix() for f in NOTEBOOKS} <= set(listed)


def test_readme_is_the_index_notebook(tmp_path):
    "`make readme` writes it"
    how = '--log-level=ERROR --to markdown --no-input --output README'.split()
    index = ROOT / 'nbs' / 'index.ipynb'
    call = [BIN / 'jupyter', 'nbconvert', *how, '--output-dir', tmp_path, index]
    subprocess.run(call, check=True, capture_output=True)
    made = (tmp_path / 'README.md').read_text().replace('](images/', '](nbs/images/')
    assert made == (ROOT / 'README.md').read_text(), 'make readme'


def test_readme_code_is_the_demo(tmp_path):
    "What the README shows gives the same student as `dda_run digits`, here with fewer images and steps"
    import torch

    from dda_nb.distillation import load_student
    from dda_nb.runs import make_config, run_all

    code = re.search(r'```python\n(from dda_nb.*?)```', (ROOT / 'README.md').read_text(), re.S)[1]
    small = {
        'train_teacher(data)': 'train_teacher(data, epochs=3)',
        'synthesize(teacher)': 'synthesize(teacher, n=40, steps=10)',
        'train_prior(bank)': 'train_prior(bank, steps=20)',
        'bank + kept,': 'bank + kept, steps=30,',
    }
    for a, b in small.items():
        assert a in code, a
        code = code.replace(a, b)
    names = {}
    exec(code, names)
    how = dict(teacher_epochs=3, bank_images=40, synth_steps=10, prior_steps=20, distill_steps=30)
    row = run_all(make_config('digits', **how), tmp_path / 'run')
    ours, theirs = (m.state_dict() for m in (names['result'].student, load_student(tmp_path / 'run')))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert (
        names['judge'](names['result'].student, names['teacher'], names['data'].test)['student_acc']
        == row['student_acc']
    )


def test_importing_is_cheap():
    "All modules together add at most half a second to importing torch, and load nothing heavy"
    script = f'''import sys, time, torch
start = time.perf_counter()
import {', '.join(f'dda_nb.{m}' for m in MODULES)}
print(time.perf_counter() - start)
print(*sys.modules)'''
    call = [sys.executable, '-c', script]
    runs = [
        subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines() for _ in range(5)
    ]
    assert min(float(r[0]) for r in runs) <= 0.5  # the least disturbed one
    heavy = (
        'torchvision sklearn matplotlib papermill diffusers open_clip datasets accelerate ray pandas IPython'
        ' timm onnx onnxruntime huggingface_hub'
    )
    assert not set(heavy.split()) & set(runs[0][1].split())
