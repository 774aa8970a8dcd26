"How the notebooks read, in figures: a table of them beside their limits; nothing is run"

# The width of a line and one statement a line are ruff's to check, which reads notebooks: see pyproject.toml.

import argparse, ast, sys
from dataclasses import dataclass
from functools import partial

from notebooks import ROOT, percent, rank, read_notebooks, spread, total
from tabulate import tabulate
from variables import lives

HALF, MOST, CELL = 12, 30, 60  # lines of an exported cell: in half of them, in nine of ten, in each
UNSHOWN = 60  # exported lines, imports aside, before a cell shows or tests something
BODY = 25  # lines of a function below its signature and docstring
NAMES = 20  # public names of a module
MODULE = 250  # lines of a module
WIDTH = 110  # characters of a line of code
SCOPE = 8  # lines in which a variable may have one of these names
VAGUE = {'found', 'made', 'seen', 'own', 'held', 'know', 'known'}

# around the table in CONTRIBUTING.md
BEGIN, END = '<!-- docs/style.py writes this table -->', '<!-- up to here -->'


# --- Figures: functions of the chapters, the notebooks that have a module; their docstrings are their names


def cell_lines(chapters):
    "lines of an exported cell"
    return spread(len(c.lines) for n in chapters for c in n.exported)


def unshown_lines(chapters):
    "exported lines before a cell shows or tests something"
    return spread(total(row) for n in chapters for row in n.unshown)


def function_lines(chapters):
    "lines of a function"
    return spread(f.lines for n in chapters for f in n.functions)


def branches(chapters):
    "branches in a function"
    return spread(f.branches for n in chapters for f in n.functions)


def wide_exported(chapters):
    "exported lines over 110 characters"
    return percent(len(line) > WIDTH for n in chapters for c in n.exported for line in c.lines)


def wide_other(chapters):
    "other lines of code over 110 characters"
    return percent(len(line) > WIDTH for n in chapters for c in n.other for line in c.lines)


def words(chapters):
    "words before a cell of code"
    return spread(w for n in chapters for w in n.words)


def wordless(chapters):
    "cells of code without words before them"
    return percent(not w for n in chapters for w in n.words)


def tested(chapters):
    "other cells of code with tests"
    return percent(c.tests for n in chapters for c in n.other)


def pictures(chapters):
    "pictures in a notebook"
    return f'{sum(n.pictures for n in chapters) / len(chapters):.1f}'


def public_names(chapters):
    "public names of a module"
    return spread(len(n.public) for n in chapters)


def module_lines(chapters):
    "lines of a module"
    return spread(n.module_lines for n in chapters)


COLUMNS = 'figure', 'now', 'limit', '0.1.0', 'miniai', 'fastcore', 'nbdev'
FIGURES = [
    (cell_lines, f'{HALF}/{MOST}/{CELL}', '27/50/195', '6/19/46', '6/16/51', '8/22/55'),
    (unshown_lines, UNSHOWN, '45/134/438', '10/24/113', '7/25/81', '12/48/137'),
    (function_lines, f'{BODY} in its body', '7/14/43', '3/9/26', '4/11/45', '5/15/45'),
    (branches, '', '3/8/27', '1/4/9', '2/6/27', '2/7/13'),
    (wide_exported, 0, '13.8 %', '0.8 %', '2.9 %', '2.9 %'),
    (wide_other, 0, '18.8 %', '0.2 %', '1.1 %', '1.4 %'),
    (words, '', '16/83/379', '0/5/217', '0/40/708', '0/58/2422'),
    (wordless, '', '39 %', '86 %', '63 %', '71 %'),
    (tested, '', '58 %', '1 %', '53 %', '42 %'),
    (pictures, '', '2.9', '7.5', '0.2', '0'),
    (public_names, NAMES, '26/39/48', '6/17/19', '16/71/163', '8/12/21'),
    (module_lines, MODULE, '521/779/803', '96/232/239', '199/518/1508', '137/297/355'),
]


def table(chapters):
    "All figures as Markdown"
    rows = [(figure.__doc__, figure(chapters), *beside) for figure, *beside in FIGURES]
    return tabulate(rows, COLUMNS, tablefmt='pipe', disable_numparse=True)


def chapter_table(chapters):
    "A line a chapter, as Markdown"
    columns = {
        'chapter': str,
        'exported cells': lambda n: len(n.exported),
        'longest': lambda n: max(len(c.lines) for c in n.exported),
        'most before one shows': lambda n: max(map(total, n.unshown)),
        'pictures': lambda n: n.pictures,
        'narrowest, pixels': lambda n: min((w for c in n.cells for w in c.widths), default=''),
        'definitions before one': lambda n: n.untold,
        'public names': lambda n: len(n.public),
        'module lines': lambda n: n.module_lines,
    }
    return tabulate([[of(n) for of in columns.values()] for n in chapters], [*columns], tablefmt='pipe')


# --- What is beyond a limit


@dataclass
class Offence:
    "Something beyond a limit"

    where: object  # a file, perhaps with the number of the cell or the line, as ruff writes them
    what: str
    found: object
    allowed: object

    def __str__(self):
        return f'{self.where}: {self.what}: {self.found}, allowed: {self.allowed}'


def in_all(chapters):
    "Half of the exported cells are short, and nine of ten"
    sizes = [len(c.lines) for n in chapters for c in n.exported]
    for share, limit in ((0.5, HALF), (0.9, MOST)):
        if rank(sizes, share) > limit:
            yield Offence('nbs', f'lines of an exported cell, {share:.0%}', rank(sizes, share), limit)


def in_cells(notebook):
    "No cell and no function is long"
    for cell in notebook.exported:
        where = f'{notebook}:cell {cell.number}'
        if len(cell.lines) > CELL:
            yield Offence(where, 'lines of an exported cell', len(cell.lines), CELL)
        for f in cell.functions:
            if f.body > BODY:
                yield Offence(where, f'lines in the body of {f.node.name}', f.body, BODY)


def in_outputs(notebook):
    "What is shown stands under what shows it"
    for cell in notebook.cells:
        if cell.kind == 'code' and cell.outputs and cell.silent:
            where = f'{notebook}:cell {cell.number}'
            yield Offence(where, 'outputs under a cell that shows nothing', len(cell.outputs), 0)


def in_chapter(notebook):
    "Something is shown in time, and the module is small"
    for row in notebook.unshown:
        where = f'{notebook}:cell {row[0].number}'
        if total(row) > UNSHOWN:
            what = f'exported lines up to cell {row[-1].number} before one shows or tests something'
            yield Offence(where, what, total(row), UNSHOWN)
    if len(notebook.public) > NAMES:
        yield Offence(notebook, 'public names of the module', len(notebook.public), NAMES)
    if notebook.module_lines > MODULE:
        yield Offence(notebook, 'lines of the module', notebook.module_lines, MODULE)


def in_names(chapters):
    "A private name means one thing, and a module is called like nothing that its folder offers"
    first, modules = {}, {n.module for n in chapters}
    for n in chapters:
        folder = n.module.rpartition('.')[0]
        for name, thing in n.definitions.items():
            there, meaning = first.setdefault(name, (n, ast.dump(thing)))
            if name.startswith('_') and meaning != ast.dump(thing):
                yield Offence(n, 'a private name with two meanings', name, f'that in {there}')
            if f'{folder}.{name}' in modules:
                yield Offence(n, 'a name of the module', name, f'what {folder}.{name} is not called')


def in_variables(file, source, place):
    "Variables that live long have telling names; `seen` is what a term of a loss is given"
    for name, line, n in lives(ast.parse(source)):
        of_term = name == 'seen' and file.parent.name in ('synthesis', 'distillation')
        if name in VAGUE and n > SCOPE and not of_term:
            where = f'{file.relative_to(ROOT)}:{place(line)}'
            yield Offence(where, f'lines with a variable called `{name}`', n, SCOPE)


def offences(notebooks):
    "All that is beyond a limit: in notebooks, and vague names in the tests and scripts too"
    chapters = [n for n in notebooks if n.module]
    yield from in_all(chapters)
    yield from in_names(chapters)
    for n in chapters:
        yield from in_cells(n)
        yield from in_chapter(n)
    for n in notebooks:
        yield from in_outputs(n)
        source, cells = n.joined
        yield from in_variables(n.path, source, lambda line: f'cell {cells[line - 1].number}')
    for file in sorted(f for folder in ('tests', 'docs') for f in (ROOT / folder).glob('*.py')):
        yield from in_variables(file, file.read_text(), str)


def write(text, file=ROOT / 'CONTRIBUTING.md'):
    "Put the table, and the two comments around it, where they stand now"
    before, rest = file.read_text().split(BEGIN)
    after = rest.split(END)[1]
    file.write_text(before + text + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    flag = partial(parser.add_argument, action='store_true')
    flag('--chapters', help='print a line a chapter, too, and what is beyond a limit')
    flag('--check', help='print what is beyond a limit and nothing else; status 1 if something is')
    flag('--write', help='put the table into CONTRIBUTING.md, too')
    args = parser.parse_args()
    notebooks = read_notebooks()
    chapters = [n for n in notebooks if n.module]
    beyond = [*offences(notebooks)] if args.check or args.chapters else []
    text = f'{BEGIN}\n\n{table(chapters)}\n\n{END}'
    if args.write:
        write(text)
    if not args.check:
        print(text)
    if args.chapters:
        print(f'\n{chapter_table(chapters)}\n')
    for offence in beyond:
        print(offence)
    sys.exit(bool(args.check and beyond))


if __name__ == '__main__':
    main()
