"How notebooks, tests and scripts read: ruff's rules, the limits of docs/style.py, and what that notices"

import ast, subprocess

import pytest
from notebooks import Cell, Notebook, read_notebooks
from style import (
    BEGIN,
    END,
    in_all,
    in_cells,
    in_chapter,
    in_names,
    in_outputs,
    in_variables,
    offences,
    write,
)
from variables import lives

from conftest import BIN, ROOT


@pytest.mark.parametrize('words', ['check', 'format --check'])
def test_ruff_has_nothing_to_say(words):
    done = subprocess.run([BIN / 'ruff', *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_beyond_a_limit():
    beyond = [*map(str, offences(read_notebooks()))]
    assert not beyond, '\n'.join(['', *beyond])


def chapter(*sources, name='example', module_lines=100):
    "A notebook of these cells of code"
    notebook = Notebook(ROOT / 'nbs' / 'core' / f'{name}.ipynb')
    sources = [f'#| default_exp core.{name}', *sources]
    notebook.cells = [Cell(number, 'code', s, []) for number, s in enumerate(sources, start=1)]
    notebook.module_lines = module_lines
    return notebook


def values(n):
    "An exported cell of so many lines"
    return '#| export\n' + '\n'.join(f'_x{i} = {i}' for i in range(n))


def names(n):
    "An exported cell that defines so many public names"
    return '#| export\n' + ' = '.join([*(f'x{i}' for i in range(n)), '0'])


def function(n):
    "An exported cell with a function of so many lines below its signature and docstring"
    return '#| export\ndef f(\n    x,\n):\n    "What it does"\n' + '    x += 1\n' * n


IMPORTS = '#| export\nimport os\n\nimport re'
TEST = 'assert _x0 == 0'


@pytest.mark.parametrize(
    'rule, notebook, beyond',
    [
        (in_cells, chapter(values(60), function(25)), ''),
        (in_cells, chapter(values(61)), ':cell 2: lines of an exported cell: 61, allowed: 60'),
        (in_cells, chapter(function(26)), ':cell 2: lines in the body of f: 26, allowed: 25'),
        (in_chapter, chapter(IMPORTS, values(60), TEST, values(30), values(30)), ''),
        (
            in_chapter,
            chapter(TEST, values(30), IMPORTS, 'import json', values(31), TEST),
            ':cell 3: exported lines up to cell 6 before one shows or tests something: 61, allowed: 60',
        ),
        (in_chapter, chapter(names(20), module_lines=250), ''),
        (in_chapter, chapter(names(21)), ': public names of the module: 21, allowed: 20'),
        (in_chapter, chapter(IMPORTS, module_lines=251), ': lines of the module: 251, allowed: 250'),
    ],
)
def test_what_is_long_is_noticed(rule, notebook, beyond):
    assert ''.join(map(str, rule(notebook))) == (beyond and f'{notebook}{beyond}')


def test_many_long_cells_are_noticed():
    short, long = values(12), values(31)
    assert not [*in_all([chapter(*[short] * 9, long)])]
    assert [o.found for o in in_all([chapter(short, long, long)])] == [31, 31]


def test_an_output_of_another_cell_is_noticed():
    notebook = chapter('#| export\ndef f(): ...', 'f()')
    notebook.cells[2].outputs = [{}]
    assert not [*in_outputs(notebook)]
    notebook.cells[1].outputs = [{}]
    assert [str(o.where) for o in in_outputs(notebook)] == [f'{notebook}:cell 2']


def test_names_with_two_meanings_are_noticed():
    one = chapter('#| export\n_limit = 1', '#| export\ndef other(): ...', name='one')
    other = chapter('#| export\n_limit = 2', name='other')
    method = chapter('#| export\n@patch\ndef _limit(self: One): ...', name='third')
    public, private = in_names([one, other, method])
    assert (public.where, public.found) == (one, 'other')
    assert (private.where, private.found) == (other, '_limit')


@pytest.mark.parametrize(
    'code, lines',
    [
        ('x = 1\ny = 2\nprint(x)', [3]),
        ('x = 1\ny = 2\nx = x + 1\nprint(x)', [3, 2]),
        ('def f(x):\n    y = 2\n    return lambda: x', [3]),
        ('x = 1\ndef f():\n    x = 2\nprint(x)', [4, 1]),
    ],
)
def test_how_many_lines_a_variable_lives(code, lines):
    assert [n for name, _, n in lives(ast.parse(code)) if name == 'x'] == lines


def test_a_vague_name_is_fine_for_a_few_lines():
    path = ROOT / 'nbs' / 'core' / 'example.ipynb'
    fine, beyond = ['\n'.join(['found = 1', *['y = 2'] * n, 'print(found)']) for n in (6, 7)]
    assert not [*in_variables(path, fine, str)]
    assert [(o.where, o.found) for o in in_variables(path, beyond, str)] == [('nbs/core/example.ipynb:1', 9)]


def test_the_table_is_put_between_its_comments(tmp_path):
    file = tmp_path / 'page.md'
    file.write_text(f'before\n{BEGIN}\nold\n{END}\nafter\n')
    write(f'{BEGIN}\nnew\n{END}', file)
    assert file.read_text() == f'before\n{BEGIN}\nnew\n{END}\nafter\n'
    assert (ROOT / 'CONTRIBUTING.md').read_text().count(BEGIN) == 1
