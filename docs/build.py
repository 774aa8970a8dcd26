"The site without Quarto: what nbdev makes of the notebooks, put into MyST's Markdown, then through Sphinx"

import json, os, re, shutil, sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path, PurePosixPath

import yaml
from nbdev.config import get_config, nbpath2html
from nbdev.serve import proc_nbs
from PIL import Image, ImageChops
from sphinx.cmd.build import main as sphinx

from nbdev_docs import sidebar

cfg = get_config(Path(__file__).parent)
HOST = cfg.doc_host + cfg.doc_baseurl.rstrip('/') + '/'
OUT = cfg.config_path / '_build'
REDIRECT = """<!doctype html>
<meta charset="utf-8">
<title>Moved</title>
<link rel="canonical" href="{0}">
<meta http-equiv="refresh" content="0; url={0}">
<p>This page is now at <a href="{0}">{0}</a>.</p>
"""


def page(file):
    "Where Sphinx finds the text of a file of `nbs/`"
    return nbpath2html(file).with_suffix(file.suffix)


def to_myst(text, here, pages):
    "Quarto's Markdown as MyST's: links between pages, and the list of references"
    up = '../' * len(here.parent.parts)

    def link(match):
        target, _, fragment = match[1].partition('#')
        if target.startswith(HOST):
            path = target.removeprefix(HOST)
            target = up + pages.get(path, path)  # Sphinx says where a link leads nowhere
        elif target.endswith(('.ipynb', '.md')) and ':' not in target:
            target = page(PurePosixPath(target)).as_posix()
        return f']({target}{"#" + fragment if fragment else ""})'

    text = re.sub(r'\]\(([^)\s]+)\)', link, text)
    return re.sub(r'^::: \{#refs\}\n:::$', '```{bibliography}\n:all:\n```', text, flags=re.M)


def to_cell(cell, myst):
    "A cell of a processed notebook as myst-nb wants it"
    source = ''.join(cell['source'])

    def prose(text):
        return dict(cell_type='markdown', metadata={}, id=cell['id'], source=myst(text))

    if cell['cell_type'] == 'raw':
        front_matter = _front_matter(source)
        return prose(f'# {front_matter["title"]}\n\n{front_matter.get("description", "")}')
    if cell['cell_type'] == 'markdown':
        return prose(source)
    options = dict(re.findall(r'^#\|\s*([\w-]+):\s*(.*)$', source, re.M))
    if options.get('output') == 'asis':
        return prose('\n\n'.join(''.join(o['data']['text/markdown']) for o in cell['outputs']))
    return dict(
        cell_type='code',
        metadata=dict(tags=['remove-input'] if options.get('echo') == 'false' else []),
        id=cell['id'],
        execution_count=None,
        outputs=[_to_output(o, myst) for o in cell['outputs']],
        source=re.sub(r'^#\|.*\n?', '', source, flags=re.M),
    )


def _front_matter(text):
    return yaml.safe_load(text.strip().strip('-')) or {}


def _to_output(output, myst):
    data = output.get('data', {})
    if text := data.get('text/markdown'):
        data['text/markdown'] = myst(''.join(text))
    if png := data.get('image/png'):
        data['image/png'] = smaller(''.join(png))
    return output


def smaller(png):
    "The same picture in base64 with a palette, where it has few enough colours for one"
    picture = Image.open(BytesIO(b64decode(png))).convert('RGBA')
    with_palette = picture.convert('RGB').quantize(256, dither=Image.Dither.NONE)
    if ImageChops.difference(picture, with_palette.convert('RGBA')).getbbox(alpha_only=False):
        return png  # colours, or transparency, would be lost
    file = BytesIO()
    with_palette.save(file, 'png', optimize=True)
    return min(png, b64encode(file.getvalue()).decode(), key=len)


def contents():
    "The sidebar as tables of contents that MyST understands"
    return '\n\n'.join(
        f'```{{toctree}}\n:hidden:\n:caption: {section}\n\n{_entries(pages)}\n```'
        for section, pages in sidebar().items()
    )


def _entries(pages):
    files = [page(PurePosixPath(p)).with_suffix('').as_posix() for p in pages]
    return '\n'.join('self' if f == 'index' else f for f in files)


def write(file, text):
    "Only if it is new, so that Sphinx reads again what changed and no more"
    if file.exists() and file.read_text() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def stage(processed, source, redirects):
    "What Sphinx reads, and pages for old addresses, from what nbdev wrote"
    files = [f for f in processed.rglob('*') if f.is_file() and not f.name.startswith(('.', '_'))]
    paths = [f.relative_to(processed) for f in files]
    texts = [p for p in paths if p.suffix in ('.ipynb', '.md')]
    pages = {nbpath2html(p).as_posix(): page(p).as_posix() for p in texts}
    shutil.rmtree(redirects, ignore_errors=True)
    redirects.mkdir(parents=True)
    for path in paths:
        if path.suffix == '.ipynb':
            stage_notebook(processed / path, page(path), pages, source, redirects)
        elif path.suffix == '.md':
            write(source / page(path), to_myst((processed / path).read_text(), page(path), pages))
        else:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(processed / path, source / path)
    for old in [f for f in source.rglob('*') if f.is_file()]:
        path = old.relative_to(source)
        if path.as_posix() not in pages.values() and path not in paths:
            old.unlink()


def stage_notebook(file, here, pages, source, redirects):
    "One notebook in MyST's Markdown, and the pages that lead to it"
    nb = json.loads(file.read_text())
    head = nb['cells'][0]
    front_matter = _front_matter(''.join(head['source'])) if head['cell_type'] == 'raw' else {}
    for alias in front_matter.get('aliases', []):
        write(redirects / alias.lstrip('/'), REDIRECT.format(nbpath2html(here).as_posix()))
    nb['cells'] = [to_cell(c, lambda text: to_myst(text, here, pages)) for c in nb['cells']]
    if here.stem == 'index':
        nb['cells'].append(dict(cell_type='markdown', metadata={}, id='contents', source=contents()))
    write(source / here, json.dumps(nb))


if __name__ == '__main__':
    os.chdir(cfg.config_path)
    inputs = ['docs/build.py', 'docs/conf.py', 'docs/nbdev_docs.py', cfg.nbs_path / 'sidebar.yml']
    newest = max(Path(f).stat().st_mtime for f in inputs)
    anew = not OUT.exists() or newest > OUT.stat().st_mtime  # how pages are prepared has changed
    stage(proc_nbs(force=anew), OUT / 'source', OUT / 'redirects')
    OUT.touch()
    options = ['-q', '-W', '--keep-going', '-j', 'auto', '-c', 'docs', '-d', str(OUT / 'doctrees')]
    sys.exit(sphinx([*options, str(OUT / 'source'), str(OUT / 'html')]))
