"Settings of Sphinx for the site without Quarto; build.py writes what it reads"

import re
from importlib.metadata import files
from pathlib import Path

from nbdev.config import get_config

cfg = get_config(Path(__file__).parent)
build = cfg.config_path / '_build'
project = html_title = cfg.title
language = 'en'

extensions = ['myst_nb', 'sphinx_copybutton', 'sphinxcontrib.bibtex']
nb_execution_mode = 'off'
nb_merge_streams = True
nb_output_stderr = 'remove'
nb_render_markdown_format = 'myst'
myst_enable_extensions = ['dollarmath', 'attrs_inline', 'deflist']
myst_heading_anchors = 4
myst_heading_slug_func = 'nbdev_docs.slug'
suppress_warnings = ['myst.header']  # the reference of a page has headings of the third level only
bibtex_bibfiles = [str(build / 'source' / 'references.bib')]
bibtex_reference_style = 'author_year'

html_theme = 'furo'
html_theme_options = dict(footer_icons=[], source_repository='')
html_show_sourcelink = html_copy_source = html_show_copyright = False
html_favicon = str(build / 'source' / 'images' / 'icon.svg')
html_css_files = ['style.css']
mathjax_path = 'tex-svg.js'  # served with the site: nothing is fetched from elsewhere
html_static_path = [
    str(build / 'source' / 'style.css'),
    *(str(f.locate()) for f in files('sphinx-mathjax-offline') if f.name == mathjax_path),
]
html_extra_path = [str(build / 'redirects')]  # pages at old addresses

CAPTION = r'<p class="caption"[^>]*><span class="caption-text">(.*?)</span></p>'
SECTION = re.compile(CAPTION + r'\s*(<ul.*?</ul>)', re.S)


def fold_sections(app, pagename, templatename, context, doctree):
    "A section of the sidebar is folded, unless the page is in it"

    def fold(match):
        is_open = 'current' in match[2] or match[1] == 'Start here'
        return f'<details{" open" if is_open else ""}><summary>{match[1]}</summary>{match[2]}</details>'

    tree = context.get('furo_navigation_tree', '').replace('reference internal', 'reference')
    context['furo_navigation_tree'] = SECTION.sub(fold, tree)


AS_IT_IS = re.compile(r'(<(pre|script|style|textarea)\b.*?</\2>)', re.S)


def trim(app, exception):
    "Pages without the indentation of their lines, where it means nothing: a fortieth of all that there is"
    for file in Path(app.outdir).rglob('*.html') if not exception else ():
        kept = AS_IT_IS.split(file.read_text())
        kept[::3] = [re.sub(r'\n\s+', '\n', text) for text in kept[::3]]
        del kept[2::3]  # names of elements
        file.write_text(''.join(kept))


def setup(app):
    app.connect('html-page-context', fold_sections, priority=900)  # after the theme's own
    app.connect('build-finished', trim)
