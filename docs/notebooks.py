"Notebooks as `style.py` reads them, without running anything: their cells, and what these give a module"

import ast, json, re
from base64 import b64decode
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from math import ceil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Cell:
    "A cell of a notebook"

    number: int  # among all cells of the notebook, from 1, as ruff counts
    kind: str  # `code`, `markdown` or `raw`
    source: str
    outputs: list

    @cached_property
    def lines(self):
        "Lines that are neither blank nor directives"
        return [line for line in self.source.splitlines() if line.strip() and not line.startswith('#|')]

    @cached_property
    def python(self):
        "The code; a line that is meant for the shell or for IPython does nothing in it"
        return re.sub(r'^(\s*)[%!].*$', r'\1pass', self.source, flags=re.M) if self.kind == 'code' else ''

    @cached_property
    def tree(self):
        return ast.parse(self.python)

    @cached_property
    def exported(self):
        return self.kind == 'code' and re.search(r'^#\| *export', self.source, re.M) is not None

    @cached_property
    def imports(self):
        "Whether it imports and does nothing else"
        return self.kind == 'code' and all(isinstance(s, ast.Import | ast.ImportFrom) for s in self.tree.body)

    @cached_property
    def silent(self):
        "Whether it defines, imports and names things, so that it has nothing to show"
        ends = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Assign
        return self.kind == 'code' and all(isinstance(s, ends) for s in self.tree.body)

    @cached_property
    def tests(self):
        return self.kind == 'code' and re.search(r'^\s*(assert|test_\w+\()', self.source, re.M) is not None

    @cached_property
    def pictures(self):
        "How many of its outputs are pictures"
        return sum(bool(re.search('image/(png|jpeg|svg)|<img|<svg', json.dumps(o))) for o in self.outputs)

    @cached_property
    def widths(self):
        "Of those that are PNG: how many pixels wide, which stands in the bytes 16 to 19 of such a file"
        pngs = [''.join(o['data']['image/png']) for o in self.outputs if 'image/png' in o.get('data', {})]
        return [int.from_bytes(b64decode(png)[16:20]) for png in pngs]

    @cached_property
    def functions(self):
        return [Function(f, self) for f in ast.walk(self.tree) if isinstance(f, ast.FunctionDef)]

    @cached_property
    def definitions(self):
        "What it defines by name: functions, classes and values; not methods that are patched into a class"
        defined = {}
        for statement in self.tree.body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                if not any('patch' in ast.unparse(d) for d in statement.decorator_list):
                    defined[statement.name] = statement
            elif isinstance(statement, ast.Assign):
                defined |= {t.id: statement for t in statement.targets if isinstance(t, ast.Name)}
        return defined

    def n_lines(self, first, last):
        "Lines that are not blank, from the first to the last, both counted from 1"
        return sum(bool(line.strip()) for line in self.source.splitlines()[first - 1 : last])


@dataclass
class Function:
    "A function in a cell"

    node: ast.FunctionDef
    cell: Cell

    @cached_property
    def lines(self):
        "How many lines it has, without decorators and blank ones"
        return self.cell.n_lines(self.node.lineno, self.node.end_lineno)

    @cached_property
    def body(self):
        "How many of them lie below signature and docstring"
        below = self.node.body[ast.get_docstring(self.node) is not None :]
        return self.cell.n_lines(below[0].lineno, self.node.end_lineno) if below else 0

    @cached_property
    def branches(self):
        "Ways through it: one, and another for each condition, loop and handler"
        forks = ast.If, ast.IfExp, ast.For, ast.While, ast.ExceptHandler, ast.comprehension
        nodes = [*ast.walk(self.node)]
        operands = sum(len(n.values) - 1 for n in nodes if isinstance(n, ast.BoolOp))
        filters = sum(len(n.ifs) for n in nodes if isinstance(n, ast.comprehension))
        return 1 + sum(isinstance(n, forks) for n in nodes) + operands + filters


@dataclass
class Notebook:
    "A notebook, and its module if it has one"

    path: Path

    def __str__(self):
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def cells(self):
        cells = json.loads(self.path.read_text())['cells']
        return [
            Cell(number, c['cell_type'], ''.join(c['source']), c.get('outputs', []))
            for number, c in enumerate(cells, start=1)
        ]

    @cached_property
    def code(self):
        "Its cells of code, without those that are directives only"
        return [c for c in self.cells if c.kind == 'code' and c.lines]

    @cached_property
    def exported(self):
        return [c for c in self.code if c.exported]

    @cached_property
    def functions(self):
        return [f for c in self.exported for f in c.functions]

    @cached_property
    def other(self):
        return [c for c in self.code if not c.exported]

    @cached_property
    def pictures(self):
        return sum(c.pictures for c in self.cells)

    @cached_property
    def untold(self):
        "Exported functions and classes before the first picture"
        before = takewhile(lambda c: not c.pictures, self.code)
        things = [s for c in before if c.exported for s in c.tree.body]
        return sum(isinstance(s, ast.FunctionDef | ast.ClassDef) for s in things)

    @cached_property
    def definitions(self):
        "What the module defines, by name"
        return {name: thing for c in self.exported for name, thing in c.definitions.items()}

    @cached_property
    def public(self):
        "Names of the module that are public"
        return [name for name in self.definitions if not name.startswith('_')]

    @cached_property
    def module(self):
        "The module's name within the package, or ''"
        target = re.search(r'^#\| *default_exp (\S+)', '\n'.join(c.source for c in self.cells), re.M)
        return target[1] if target and self.exported else ''

    @cached_property
    def module_lines(self):
        "How many lines the module has; 0 if it is not exported yet"
        file = ROOT / 'dda_nb' / f'{self.module.replace(".", "/")}.py'
        return len(file.read_text().splitlines()) if file.exists() else 0

    @cached_property
    def joined(self):
        "All code, and for each of its lines the cell that it is from"
        lines = [(t, c) for c in self.code for t in c.python.splitlines() if t.strip()]
        return '\n'.join(t for t, _ in lines), [c for _, c in lines]

    @cached_property
    def unshown(self):
        "Rows of exported cells, imports aside, without a cell between them that shows or tests something"
        rows = [[]]
        for cell in self.code:
            if cell.exported and not cell.imports:
                rows[-1].append(cell)
            elif not cell.imports:
                rows.append([])
        return [row for row in rows if row]

    @cached_property
    def words(self):
        "Words of prose before each cell of code"
        counts = [0]
        for cell in self.cells:
            if cell.kind == 'markdown':
                counts[-1] += len(cell.source.split())
            elif cell.lines:
                counts.append(0)
        return counts[:-1]


def read_notebooks():
    files = sorted((ROOT / 'nbs').rglob('*.ipynb'))
    return [Notebook(f) for f in files if '.ipynb_checkpoints' not in f.parts]


def rank(values, share):
    "The least value that this share of the values does not exceed"
    return sorted(values)[ceil(share * len(values)) - 1]


def spread(values):
    "Median, 90th percentile and maximum"
    values = [*values]
    return '/'.join(str(rank(values, share)) for share in (0.5, 0.9, 1))


def percent(hits):
    "How many of them are true"
    hits = [bool(h) for h in hits]
    return f'{100 * sum(hits) / len(hits):.1f} %'


def total(cells):
    "Lines of these cells together"
    return sum(len(c.lines) for c in cells)
