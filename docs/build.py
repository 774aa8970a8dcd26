"The site without Quarto: nbdev's processed notebooks, put from Quarto's Markdown into MyST's, then through Sphinx into _build/html"

import json, os, re, shutil, sys
from pathlib import Path, PurePosixPath

import yaml
from nbdev.config import get_config, nbpath2html
from nbdev.serve import proc_nbs
from sphinx.cmd.build import main as sphinx

cfg = get_config(Path(__file__).parent)
HOST = cfg.doc_host + cfg.doc_baseurl.rstrip('/') + '/'
OUT = cfg.config_path / '_build'


def page(file):
    "Where a file of `nbs/` lies on the site, without its number: 04_synthesis.ipynb is synthesis.ipynb"
    return nbpath2html(file).with_suffix(file.suffix)


def to_myst(text, here, pages):
    "Quarto's Markdown as MyST's: links between pages, citations, the list of references"
    up = '../' * len(here.parent.parts)

    def link(m):
        target, _, fragment = m[1].partition('#')
        if target.startswith(HOST):
            target = up + pages[target.removeprefix(HOST)]  # KeyError: no such page
        elif target.endswith(('.ipynb', '.md')) and ':' not in target:
            target = page(PurePosixPath(target)).as_posix()
        return f']({target}{"#" + fragment if fragment else ""})'

    text = re.sub(r'\]\(([^)\s]+)\)', link, text)
    text = re.sub(
        r'\[(@[\w:-]+(?:; @[\w:-]+)*)\]',
        lambda m: '{cite:p}`' + m[1].replace('@', '').replace('; ', ',') + '`',
        text,
    )
    return re.sub(r'^::: \{#refs\}\n:::$', '```{bibliography}\n:all:\n```', text, flags=re.M)


def to_cell(cell, myst):
    "A cell of a processed notebook as myst-nb wants it"
    source = ''.join(cell['source'])

    def prose(text):
        return dict(cell_type='markdown', metadata={}, id=cell['id'], source=myst(text))

    if cell['cell_type'] == 'raw':
        said = yaml.safe_load(source.strip().strip('-')) or {}
        return prose(f'# {said["title"]}\n\n{said.get("description", "")}')
    if cell['cell_type'] == 'markdown':
        return prose(source)
    said = dict(re.findall(r'^#\|\s*([\w-]+):\s*(.*)$', source, re.M))
    if said.get('output') == 'asis':
        return prose('\n\n'.join(''.join(o['data']['text/markdown']) for o in cell['outputs']))
    tags = ['remove-input'] if said.get('echo') == 'false' else []
    return dict(
        cell_type='code',
        metadata=dict(tags=tags),
        id=cell['id'],
        execution_count=None,
        outputs=[_myst_output(o, myst) for o in cell['outputs']],
        source=re.sub(r'^#\|.*\n?', '', source, flags=re.M),
    )


def _myst_output(output, myst):
    if text := output.get('data', {}).get('text/markdown'):
        output['data']['text/markdown'] = myst(''.join(text))
    return output


def contents(items, caption=''):
    "The sidebar as tables of contents that MyST understands"
    pages = [
        page(PurePosixPath(i)).with_suffix('').as_posix()
        for i in items
        if isinstance(i, str) and not i.startswith('index.')
    ]
    sections = [contents(i['contents'], i['section']) for i in items if isinstance(i, dict)]
    head = ':hidden:\n' + (f':caption: {caption}\n' if caption else '')
    return '\n\n'.join([f'```{{toctree}}\n{head}\n' + '\n'.join(pages) + '\n```', *sections])


def write(file, text):
    "Only if it is new, so that Sphinx reads again what changed and no more"
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def stage(processed, out):
    "What Sphinx reads, from what nbdev wrote"
    found = [f for f in processed.rglob('*') if f.is_file() and not f.name.startswith(('.', '_'))]
    pages = {
        nbpath2html(f.relative_to(processed)).as_posix(): page(f.relative_to(processed)).as_posix()
        for f in found
        if f.suffix in ('.ipynb', '.md')
    }
    sidebar = contents(
        yaml.safe_load((cfg.nbs_path / 'sidebar.yml').read_text())['website']['sidebar']['contents']
    )
    for f in found:
        here = page(f.relative_to(processed))
        myst = lambda text: to_myst(text, here, pages)
        if f.suffix == '.ipynb':
            nb = json.loads(f.read_text())
            nb['cells'] = [to_cell(c, myst) for c in nb['cells']]
            if here.stem == 'index':
                nb['cells'].append(dict(cell_type='markdown', metadata={}, id='contents', source=sidebar))
            write(out / here, json.dumps(nb))
        elif f.suffix == '.md':
            write(out / here, myst(f.read_text()))
        else:
            (out / here.parent).mkdir(parents=True, exist_ok=True)
            shutil.copy2(f, out / here)
    for old in [f for f in out.rglob('*') if f.is_file()]:
        if not (
            old.relative_to(out).as_posix() in pages.values() or (processed / old.relative_to(out)).is_file()
        ):
            old.unlink()


if __name__ == '__main__':
    os.chdir(cfg.config_path)
    old = not OUT.exists() or any(
        f.stat().st_mtime > OUT.stat().st_mtime for f in Path('docs').iterdir()
    )  # than how it is to be prepared
    stage(proc_nbs(force=old), OUT / 'source')
    OUT.touch()
    sys.exit(
        sphinx(
            ['-q', '-W', '--keep-going', '-j', 'auto', '-c', 'docs', str(OUT / 'source'), str(OUT / 'html')]
        )
    )
