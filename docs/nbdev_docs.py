"How nbdev prepares a notebook for the site, whether Quarto or Sphinx builds it (named in pyproject.toml)"

import inspect, re
from itertools import groupby
from pathlib import Path

from fastcore.docments import DocmentTbl, MarkdownRenderer
from fastcore.nbio import mk_cell
from nbdev.config import get_config
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor


class ApiEntry(MarkdownRenderer):
    "What `show_doc` gives: signature, docstring, link to the source, and a table of the parameters with their comments"

    def _repr_markdown_(self):
        source = NbdevLookup().code(self.fn)
        link = f'[source]({source}){{.doc-source}}\n\n' if source else ''
        return f'{"#" * self.title_level} {self.nm}\n\n{link}```python\n{self._signature()}\n```\n\n{self.docs or ""}\n\n{DocmentTbl(self.sym)._repr_markdown_()}\n\n{self._methods()}\n'

    def _methods(self):
        "A class's own public methods and properties; those that are patched in have entries of their own"
        if not inspect.isclass(self.sym):
            return ''
        own = {
            k: getattr(v, 'fget', None) or getattr(v, 'func', v)
            for k, v in vars(self.sym).items()
            if not k.startswith('_')
        }
        own = {
            k: v
            for k, v in own.items()
            if inspect.isfunction(v) and v.__doc__ and 'self' not in v.__annotations__
        }
        return '\n\n'.join(
            f'{"#" * self.title_level}# {self.nm}.{k}\n\n{v.__doc__}\n\n{DocmentTbl(v)._repr_markdown_()}'
            for k, v in own.items()
        )

    def _signature(self):
        "On one line, or a line a parameter where that is too long"
        if self.sig is None:
            return self.nm
        bare = self.sig.replace(
            return_annotation=inspect.Signature.empty,
            parameters=[p.replace(annotation=p.empty) for p in self.sig.parameters.values()],
        )
        whole = f'{self.nm}{bare}'
        return (
            whole
            if len(whole) < 100
            else f'{self.nm}(\n    ' + ',\n    '.join(map(str, bare.parameters.values())) + ')'
        )


class Chapter(Processor):
    "A notebook as it reads on the site: a link to itself, prose, code and pictures, then the reference of all that it exports"

    def begin(self):
        told, api = [], []
        for is_entry, cells in groupby(self.nb.cells, lambda c: getattr(c, 'has_sd', False)):
            if is_entry:
                api += [*cells][::-1]  # nbdev puts the entries of a cell last first
            else:
                told += [
                    c for c in cells if not getattr(c, 'directives_', {}).keys() & {'hide', 'default_exp'}
                ]
        at = 1 + next((i for i, c in enumerate(told) if c.cell_type == 'raw'), -1)
        told.insert(at, mk_cell(f'[Open this notebook]({self._address()}){{.open-notebook}}', 'markdown'))
        self.nb.cells = told + ([mk_cell('## Reference', 'markdown'), *api] if api else [])

    def _address(self):
        cfg = get_config()
        file = Path(self.nb.path_).absolute().relative_to(cfg.config_path)
        return f'{cfg.git_url.rstrip("/")}/blob/{cfg.branch}/{file.as_posix()}'


def slug(title):
    "The anchor of a heading, as Quarto makes it, so that links work on either site: it begins with a letter"
    return (
        re.sub(r'^[^a-z]+', '', re.sub(r'[^\w .-]', '', title.lower()).strip().replace(' ', '-')) or 'section'
    )
