"How nbdev prepares a notebook for the site, whether Quarto or Sphinx builds it (named in pyproject.toml)"

import functools, inspect, re
from itertools import groupby
from pathlib import Path

import yaml
from fastcore.docments import DocmentTbl, MarkdownRenderer
from fastcore.nbio import mk_cell, read_nb
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor

MOVED = {  # pages that were one chapter before 0.2.0, and the folders that have their notebooks now
    'core': 'core',
    'data': 'data',
    'models': 'models',
    'bank': 'bank',
    'synthesis': 'synthesis',
    'augmentation': 'augmentation',
    'filtering': 'filtering',
    'distillation': 'distillation',
    'pipeline': 'runs',
    'runs': 'runs',
    'sweeps': 'sweeps',
    'widgets': 'widgets',
}


class ApiEntry(MarkdownRenderer):
    "What `show_doc` gives: signature, docstring, link to the source, and a table of the parameters"

    def _repr_markdown_(self):
        source = NbdevLookup().code(self.fn)
        parts = [
            f'{"#" * self.title_level} {self.nm}',
            f'[source]({source}){{.doc-source}}' if source else '',
            f'```python\n{self._signature()}\n```',
            self.docs or '',
            DocmentTbl(self.sym)._repr_markdown_(),
            self._methods(),
        ]
        return '\n\n'.join(parts) + '\n'

    def _methods(self):
        "A class's own public methods and properties; those that are patched in have entries of their own"
        if not inspect.isclass(self.sym):
            return ''
        members = {name: _function_of(member) for name, member in vars(self.sym).items()}
        return '\n\n'.join(
            f'{"#" * self.title_level}# {self.nm}.{name}\n\n{f.__doc__}\n\n{DocmentTbl(f)._repr_markdown_()}'
            for name, f in members.items()
            if not name.startswith('_') and _is_told(f)
        )

    def _signature(self):
        "On one line, or a line a parameter where that is too long"
        if self.sig is None:
            return self.nm
        bare = self.sig.replace(
            return_annotation=inspect.Signature.empty,
            parameters=[_bare(p) for p in self.sig.parameters.values()],
        )
        whole = f'{self.nm}{bare}'
        if len(whole) < 100:
            return whole
        return f'{self.nm}(\n    ' + ',\n    '.join(map(str, bare.parameters.values())) + ')'


class _Named:
    "A default that is a class or a function, which a signature shows by its name"

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


def _bare(parameter):
    "A parameter without its annotation, which the table has"
    default = parameter.default
    if default is not parameter.empty and (inspect.isclass(default) or inspect.isroutine(default)):
        default = _Named(default.__name__)
    return parameter.replace(annotation=parameter.empty, default=default)


def _function_of(member):
    "The function behind a method, a property, a class method or a static method"
    inside = (getattr(member, name, None) for name in ('fget', 'func', '__func__'))
    return next(filter(None, inside), member)


def _is_told(function):
    "Whether it has a docstring, and was written in the class itself"
    return inspect.isfunction(function) and function.__doc__ and 'self' not in function.__annotations__


class Chapter(Processor):
    """A notebook as it reads on the site: a link to itself, what it tells, then the reference of its names

    A folder's first page takes over the address of the chapter that the folder was before 0.2.0. A page of
    `results/` ends with the cells of the executed notebook that it links.
    """

    def begin(self):
        cfg = get_config()
        self.file = Path(self.nb.path_).absolute()
        self.page = self.file.relative_to(cfg.nbs_path.absolute()).as_posix()
        told, reference = self._parts()
        at = 1 + next((i for i, cell in enumerate(told) if cell.cell_type == 'raw'), -1)
        if at:
            told[at - 1].source = _with_aliases(told[at - 1].source, old_addresses(self.page))
        told.insert(at, mk_cell(f'[Open this notebook]({address(self.file)}){{.open-notebook}}', 'markdown'))
        self.nb.cells = told + reference + self._executed()

    def _parts(self):
        "What is told, and the entries of the reference under a heading of their own"
        told, entries = [], []
        for is_entry, cells in groupby(self.nb.cells, lambda c: getattr(c, 'has_sd', False)):
            if is_entry:
                entries += [*cells][::-1]  # nbdev puts the entries of a cell last first
            else:
                told += [c for c in cells if not _is_hidden(c)]
        return told, [mk_cell('## Reference', 'markdown'), *entries] if entries else []

    def _executed(self):
        "The cells of the notebook under the repository's `results/` that a page links, but for its title"
        if not self.page.startswith('results/'):
            return []
        link = re.compile(r'\]\((\.\./\.\./results/[^)]+\.ipynb)\)')
        linked = [m[1] for c in self.nb.cells if c.cell_type == 'markdown' for m in link.finditer(c.source)]
        for cell in self.nb.cells:
            if cell.cell_type == 'markdown':
                cell.source = link.sub(lambda m: f']({address(self.file.parent / m[1])})', cell.source)
        executed = [c for c in read_nb(self.file.parent / linked[-1]).cells if not c.source.startswith('# ')]
        for cell in executed:
            cell.directives_ = cell.directives  # as nbdev has it of all cells
        return executed


def _is_hidden(cell):
    return bool(getattr(cell, 'directives_', {}).keys() & {'hide', 'default_exp'})


def address(file):
    "Where a file of the repository is shown"
    cfg = get_config()
    path = file.resolve().relative_to(cfg.config_path.resolve()).as_posix()
    return f'{cfg.git_url.rstrip("/")}/blob/{cfg.branch}/{path}'


@functools.cache
def sidebar():
    "The sections of the sidebar, each with its pages: `{section: [page, ...]}`"
    text = (get_config().nbs_path / 'sidebar.yml').read_text()
    sections = yaml.safe_load(text)['website']['sidebar']['contents']
    return {s['section']: s['contents'] for s in sections}


def old_addresses(page):
    "The addresses that lead to a page besides its own: a folder's first page has those of its old chapters"
    folder = page.split('/')[0]
    first = next((p for pages in sidebar().values() for p in pages if p.startswith(f'{folder}/')), None)
    return [f'/{old}.html' for old, new in MOVED.items() if page == first and new == folder]


def _with_aliases(front_matter, aliases):
    "Front matter that tells Quarto, and docs/build.py, of old addresses"
    return front_matter.replace('---\n', f'---\naliases: {aliases}\n', 1) if aliases else front_matter


def slug(title):
    "The anchor of a heading, as Quarto makes it, so that links work on either site: it begins with a letter"
    words = re.sub(r'[^\w .-]', '', title.lower()).strip().replace(' ', '-')
    return re.sub(r'^[^a-z]+', '', words) or 'section'
