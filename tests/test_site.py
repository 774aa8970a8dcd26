"The docs site, built without Quarto and walked in a browser; and what can be checked of Quarto's without it"

import functools, html, importlib, inspect, json, os, re, shutil, subprocess, sys, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat, pytest, yaml
from nbdev_docs import MOVED, sidebar

from conftest import BROWSER, ROOT

NBS = ROOT / 'nbs'
HOST = 'https://dda-nb.github.io/dda_nb/'
IN_SIDEBAR = [NBS / page for pages in sidebar().values() for page in pages]
NOTEBOOKS = sorted(f for f in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in f.parts)


def cells_of(file):
    "The cells of a notebook; a page of Markdown is one cell"
    if file.suffix == '.md':
        return [nbformat.v4.new_markdown_cell(file.read_text())]
    return nbformat.read(file, 4).cells


def markdown_of(file):
    "The prose of a page, without blocks of code"
    prose = [c.source for c in cells_of(file) if c.cell_type == 'markdown']
    return '\n'.join(re.sub(r'```.*?```', '', text, flags=re.S) for text in prose)


def exports(file):
    "Whether a notebook is a module"
    return any(c.source.startswith('#| default_exp') for c in cells_of(file))


MODULES = [f.relative_to(NBS).with_suffix('').as_posix() for f in NOTEBOOKS if exports(f)]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The built site, from a copy of the checkout"
    copy = tmp_path_factory.mktemp('docs') / 'repo'
    left_out = '.*', 'runs', 'build', '_proc', '_build', '_docs', '__pycache__', '*.egg-info'

    def leave_out(folder, names):
        "`runs` is left out beside the README only: a chapter has that name too"
        patterns = left_out if folder == str(ROOT) else [p for p in left_out if p != 'runs']
        return shutil.ignore_patterns(*patterns)(folder, names)

    shutil.copytree(ROOT, copy, symlinks=True, ignore=leave_out)
    build = subprocess.run(
        [sys.executable, 'docs/build.py'],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {'PYTHONPATH': f'{copy}/docs{os.pathsep}{copy}'},
    )
    assert build.returncode == 0, build.stderr[-3000:]
    return copy / '_build' / 'html'


@pytest.fixture(scope='module')
def pages(site):
    "The pages of the site, without those that only lead to others"
    return [f for f in sorted(site.rglob('*.html')) if 'http-equiv="refresh"' not in f.read_text()]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    "Serve a folder on this machine; its address"
    running = []

    def serve(folder):
        running.append(ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder))))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f'http://127.0.0.1:{running[-1].server_port}'

    yield serve
    for server in running:
        server.shutdown()
        server.server_close()


# --- Every page in a browser

UNLOADED = """() => Promise.all([...document.images].map(i => {
  i.loading = "eager";
  return i.decode().then(() => null, () => i.src.slice(0, 80));
}))"""

WORDS = """() => [...document.querySelectorAll("article :is(p, li, td, h1, h2, h3)")]
  .map(e => e.innerText).join("\\n")"""

LEFTOVERS = r':::|\{#|\{\.|#\| |\[@\w+|\{cite|\$\$|\\mathcal'


def listen(page, base, faults):
    "Note what a page's loading says is wrong"

    def response(r):
        if r.status >= 400:
            faults.append(('status', r.status, r.url))

    def request(r):
        if not r.url.startswith((base, 'data:', 'blob:')):
            faults.append(('external request', r.url))

    def console(message):
        if message.type == 'error':
            faults.append(('console', message.text))

    page.on('response', response)
    page.on('request', request)
    page.on('console', console)
    page.on('pageerror', lambda e: faults.append(('script', str(e))))


def open_page(page, url):
    page.goto(url, wait_until='load')
    page.evaluate('window.MathJax?.startup?.promise')


OVERLAPS = """() => {
  const blocks = "article :is(p, pre, table, img, h1, h2, h3, li, dl > dt)";
  const visible = [...document.querySelectorAll(blocks)].filter(e => e.offsetParent && !e.closest("td"));
  const boxes = visible.map(e => [e, e.getBoundingClientRect()])
    .filter(([, box]) => box.width > 1 && box.height > 1);
  const text = e => [e.tagName, e.innerText.slice(0, 40)];
  const bad = [];
  for (let i = 1; i < boxes.length; i++) {
    const [a, p] = boxes[i - 1], [b, q] = boxes[i];
    if (a.contains(b) || b.contains(a)) continue;
    const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (w > 2 && h > 2) bad.push([...text(a), ...text(b)]);
  }
  return [bad, document.documentElement.scrollWidth - document.documentElement.clientWidth];
}"""

SCROLLS = """() => {
  const boxes = document.querySelectorAll("article :is(pre, table, div.table-wrapper, div.cell_output)");
  const wide = [...boxes].filter(e => e.offsetParent && getComputedStyle(e).display != "table")
    .filter(e => e.scrollWidth > e.clientWidth);
  const right = e => e.getBoundingClientRect().right;
  const room = right(document.querySelector("article"));
  const out = [...document.querySelectorAll("article table")].filter(e => right(e) > room + 1);
  return [...wide, ...out].map(e => [e.tagName, e.scrollWidth, e.clientWidth, e.innerText.slice(0, 60)]);
}"""

WRAPPED = """() => [...document.querySelectorAll("article .cell_input pre")].flatMap(e => {
  const lines = e.textContent.replace(/\\n$/, "").split("\\n");
  const high = e.clientHeight - parseFloat(getComputedStyle(e).paddingTop) * 2;
  return high > (lines.length + .5) * parseFloat(getComputedStyle(e).lineHeight) ? [lines[0]] : [];
})"""


def look(page, width, code):
    "What lies wrong on the open page in a window of this width; `code`: whether wrapped code does, too"
    page.set_viewport_size(dict(width=width, height=900))
    overlaps, wider = page.evaluate(OVERLAPS)
    faults = [(width, *o) for o in overlaps] + [(width, 'wider', wider)] * (wider > 0)
    if width >= 1300 and page.locator('article').count():
        faults += [(width, 'scrolls', *s) for s in page.evaluate(SCROLLS)]
        faults += [(width, 'wrapped', line) for line in (page.evaluate(WRAPPED) if code else [])]
    return faults


def walk(site, base, page, files, widths=()):
    "Open pages, and look at them in windows of these widths; what is wrong, how many pictures, equations"
    faults, links, ids, counts = [], {}, {}, dict(images=0, equations=0)
    listen(page, base, faults)
    for file in files:
        url = f'{base}/{file.relative_to(site).as_posix()}'
        open_page(page, url)
        links[url] = page.eval_on_selector_all('a[href]', 'all => all.map(a => a.href)')
        ids[url] = set(page.eval_on_selector_all('[id]', 'all => all.map(e => e.id)'))
        images = page.evaluate(UNLOADED)
        faults += [('image', url, src) for src in images if src]
        counts['images'] += len(images)
        counts['equations'] += page.locator('mjx-container').count()
        faults += [('equation', url)] * page.locator('mjx-merror').count()
        faults += [('markup', url, m) for m in re.findall(LEFTOVERS, page.evaluate(WORDS))]
        is_chapter = not file.is_relative_to(site / 'results')
        faults += [('look', url, *f) for width in widths for f in look(page, width, is_chapter)]
    for url, targets in links.items():
        faults += [(kind, url, link) for link in targets if (kind := fault_of(link, site, base, ids))]
    return faults, counts


def fault_of(link, site, base, ids):
    "What is wrong with a link into the site: no such page, or no such place on it"
    target, fragment = urldefrag(link)
    if not target.startswith(base):
        return ''
    file = site / unquote(urlsplit(target).path).lstrip('/')
    if not file.is_file() and not (file / 'index.html').is_file():
        return 'link'
    return 'fragment' if fragment and unquote(fragment) not in ids.get(target, {unquote(fragment)}) else ''


@BROWSER
@pytest.mark.parametrize(
    'scheme, widths', [('light', [1300, 400]), pytest.param('dark', [1700], marks=pytest.mark.slow)]
)
def test_every_page(site, pages, served, browser, scheme, widths):
    """Links lead somewhere, pictures and equations show, nothing overlaps, no page is wider than the window

    From 1,300 pixels on, no code and no table scrolls sideways, and no line of a chapter's code is wrapped;
    those of notebooks that were executed before lines had a limit are.
    """
    context = browser.new_context(color_scheme=scheme)
    faults, counts = walk(site, served(site), context.new_page(), pages, widths)
    context.close()
    assert not faults, (len(faults), faults[:20])
    assert counts['images'] > 60 and counts['equations'] > 40
    assert sum(f.stat().st_size for f in site.rglob('*') if f.is_file()) < 20e6
    assert len(pages) >= len(IN_SIDEBAR)


@BROWSER
@pytest.mark.parametrize(
    'fault, kind',
    [
        ('<a href="nowhere.html">x</a>', 'link'),
        ('<a href="results.html#nowhere">x</a>', 'fragment'),
        ('<img src="none.png">', 'image'),
        ('<script>throw Error("x")</script>', 'script'),
        ('<script>console.error("x")</script>', 'console'),
        ('<img src="http://127.0.0.2:9/x.png">', 'external request'),
        ('<p>::: {.note}</p>', 'markup'),
    ],
)
def test_the_walk_finds_faults(site, served, browser, tmp_path, fault, kind):
    shutil.copytree(site, tmp_path / 'site')
    files = [tmp_path / 'site' / name for name in ('glossary.html', 'results.html')]
    files[0].write_text(files[0].read_text().replace('</article>', f'{fault}</article>'))
    faults, _ = walk(tmp_path / 'site', served(tmp_path / 'site'), browser.new_page(), files)
    assert kind in [f[0] for f in faults], faults


@BROWSER
def test_search_finds_a_function(site, served, browser):
    page = browser.new_page()
    page.goto(served(site) + '/search.html?q=keep_similar')
    page.wait_for_selector('#search-results li a')
    links = page.eval_on_selector_all('#search-results li a', 'all => all.map(a => a.href)')
    assert '/filtering/' in ' '.join(links)


@BROWSER
def test_old_addresses_lead_to_the_new_ones(site, served, browser):
    page, base = browser.new_page(), served(site)
    for old, folder in MOVED.items():
        first = next(p for pages in sidebar().values() for p in pages if p.startswith(f'{folder}/'))
        page.goto(f'{base}/{old}.html')
        page.wait_for_url(f'{base}/{first.replace(".ipynb", ".html")}')
        assert page.locator('article h1').count() == 1, old


def test_quarto_is_told_of_old_addresses(site):
    "The same, in the front matter of the processed notebooks that Quarto reads"
    texts = [f.read_text() for f in (site.parent.parent / '_proc').rglob('*.ipynb')]
    aliases = [a for text in texts for a in re.findall(r"aliases: \[([^\]]*)\]", text)]
    assert sorted(re.findall(r'/(\w+)\.html', ' '.join(aliases))) == sorted(MOVED)


# --- What a page looks like


@BROWSER
@pytest.mark.parametrize(
    'block',
    [
        f'<pre style="white-space: pre">{"x" * 200}</pre>',
        f'<div class="table-wrapper"><table><td style="white-space: nowrap">{"x " * 300}</td></table></div>',
        f'<table class="dataframe"><td style="white-space: nowrap">{"x " * 300}</td></table>',
    ],
)
def test_wide_code_and_tables_are_noticed(site, served, browser, tmp_path, block):
    page = browser.new_page(viewport=dict(width=1300, height=900))
    page.goto(f'{served(site)}/glossary.html')
    assert not page.evaluate(SCROLLS)
    page.evaluate('block => document.querySelector("article").insertAdjacentHTML("beforeend", block)', block)
    assert page.evaluate(SCROLLS)


@BROWSER
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_words_stand_out_from_the_ground(site, served, browser, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(f'{served(site)}/results.html')

    def brightness(what):
        colour = page.evaluate(f'getComputedStyle(document.body).{what}')
        return sum(map(int, re.findall(r'\d+', colour)[:3])) / 3

    ground, ink = brightness('backgroundColor'), brightness('color')
    assert (ground > 200 > 100 > ink) if scheme == 'light' else (ground < 60 < 150 < ink)
    context.close()


# --- What the pages hold


@pytest.mark.parametrize('name', MODULES)
def test_every_public_name_is_in_the_reference(site, name):
    "With its docstring, a link to its source, and all its parameters in the table"
    module = importlib.import_module('dda_nb.' + name.replace('/', '.'))
    page = (site / f'{name}.html').read_text()
    for public in module.__all__:
        thing = getattr(module, public)
        if not inspect.isfunction(thing) and not inspect.isclass(thing):
            continue
        entry = re.search(rf'<h3>{public}<.*?(?=<h3>|</article>)', page, re.S)
        assert entry, public
        assert f'/blob/main/dda_nb/{name}.py#L' in entry[0], public
        words = html.unescape(re.sub('<[^>]+>', '', entry[0])).replace('’', "'")
        assert thing.__doc__ and re.search(r'\w+', thing.__doc__)[0] in words, public
        parameters = inspect.signature(thing).parameters if inspect.isfunction(thing) else ()
        in_table = re.findall(r'<td[^>]*><p>(\w+)</p></td>', entry[0])
        assert set(parameters) <= set(in_table), public


def test_every_page_has_its_place():
    "The sidebar names every notebook and page, each once, and nothing that is not there"
    assert sorted(IN_SIDEBAR) == sorted([*NOTEBOOKS, *NBS.glob('*.md')])


def test_every_experiment_has_a_page_with_an_executed_notebook(site):
    "Each folder of results has a page of its name, and shows the notebook that it links at its end"
    folders = [f for f in (ROOT / 'results').iterdir() if f.is_dir()]
    assert sorted(f.name for f in folders) == sorted(f.stem for f in (NBS / 'results').glob('*.ipynb'))
    for folder in folders:
        linked = re.findall(
            r'\]\(\.\./\.\./(results/\S+\.ipynb)\)', markdown_of(NBS / f'results/{folder.name}.ipynb')
        )
        assert linked and linked[-1].startswith(f'results/{folder.name}/')
        page = html.unescape(re.sub('<[^>]+>', '', (site / f'results/{folder.name}.html').read_text()))
        last = [c.source for c in cells_of(ROOT / linked[-1]) if c.cell_type == 'code'][-1]
        assert last.splitlines()[0].strip() in page, folder


def test_every_run_is_in_the_list_of_results():
    text = (ROOT / 'results' / 'README.md').read_text()
    runs = [
        f.parent.relative_to(ROOT / 'results').as_posix() for f in (ROOT / 'results').rglob('results.json')
    ]
    listed = re.findall(r'^\| \[[^\]]+\]\(([^)]+)\)', text, re.M)
    assert sorted(listed) == sorted(runs)
    for run, command in re.findall(r'^\| \[[^\]]+\]\(([^)]+)\) \| `([^`]+)`', text, re.M):
        assert json.loads((ROOT / 'results' / run / 'results.json').read_text())['command'] == command


def test_results_say_what_made_them():
    "The page begins with pictures; under each table stand command, commit, device and version"
    outputs = [o for c in cells_of(NBS / 'results.ipynb') for o in c.get('outputs', []) if 'data' in o]
    assert all('image/png' in o.data for o in outputs[:2])
    texts = [o.data.get('text/markdown', '') for o in outputs]
    tables = [text for text in texts if re.search(r'^\|:?-', text, re.M)]
    assert len(tables) > 6
    for text in tables:
        assert re.search(
            r'<small>`(dda_run|dda_sweep|papermill) .*`, commit \w+.*, .* CPU.*, torch ', text
        ), text


def test_every_citation_is_in_the_list_of_references():
    "Papers are cited as text and link, which JupyterLab shows too; the list has those and no others"
    listed = re.findall(r'url = \{([^}]+)\}', (NBS / 'references.bib').read_text())
    text = '\n'.join(map(markdown_of, IN_SIDEBAR))
    cited = re.findall(r'\]\((https?://(?:arxiv\.org|doi\.org|dx\.doi\.org)/[^)\s]+)\)', text)
    assert set(cited) == set(listed), set(cited) ^ set(listed)
    assert not re.findall(r'\[@\w+[^\]]*\]', text)


def test_the_list_of_references_is_whole(site):
    page = (site / 'references.html').read_text()
    for url in re.findall(r'url = \{([^}]+)\}', (NBS / 'references.bib').read_text()):
        assert f'href="{url}"' in page, url
    assert 'nocite: "@*"' in (NBS / 'references.md').read_text()  # Quarto's word for all of them


def test_links_lead_somewhere():
    "Links between notebooks, to the site's own address, and to files of the repository"
    for file in IN_SIDEBAR:
        text = markdown_of(file)
        for path in re.findall(r'github\.com/dda-nb/dda_nb/blob/main/([^)\s#]+)', text):
            assert (ROOT / path).exists(), (file, path)
        for link in re.findall(r'\]\(((?!https?:|#)[^)\s]+)\)', text):
            assert (file.parent / link.split('#')[0]).exists(), (file, link)
        for page in re.findall(rf'{HOST}([^)\s#]*)\.html', text):
            assert {NBS / f'{page}.ipynb', NBS / f'{page}.md'} & set(IN_SIDEBAR), (file, page)


def test_the_reader_is_led_along_the_sidebar():
    "`Next:` at a chapter's end leads to the next page of the sidebar, or to another folder"
    for file, following in zip(IN_SIDEBAR, IN_SIDEBAR[1:]):
        for link in re.findall(r'^Next: \[[^\]]+\]\(([^)]+\.ipynb)\)', markdown_of(file), re.M):
            target = (file.parent / link).resolve()
            assert target == following.resolve() or target.parent != file.parent.resolve(), (file, link)


# --- The other builder, and the workflows


def test_quarto_is_configured():
    "Its files parse and name files that exist; callouts, divs and references are well-formed"
    quarto = yaml.safe_load((ROOT / '_quarto.yml').read_text())
    assert (NBS / '_quarto.yml').resolve() == ROOT / '_quarto.yml'
    named = [quarto['bibliography'], quarto['format']['html']['css'], quarto['website']['favicon']]
    for file in [*quarto['metadata-files'], *named]:
        assert (NBS / file).is_file(), file
    for file in quarto['metadata-files']:
        yaml.safe_load((NBS / file).read_text())
    for file in IN_SIDEBAR:
        text = markdown_of(file)
        divs = [d.strip() for d in re.findall(r'^:{3,}(.*)$', text, re.M)]
        opened = [d for d in divs if d]
        assert len(opened) * 2 == len(divs), (file, opened)
        for div in opened:
            assert re.fullmatch(r'\{(#refs|\.callout-(note|tip|important|caution|warning).*)\}', div), (
                file,
                div,
            )
        for label in re.findall(r'(?<![\w`\[;])@((?:fig|eq|tbl|sec)-[\w-]+)', text):
            assert '{#' + label in text or f'label: {label}' in text, (file, label)


def test_nbdev_has_nothing_to_change():
    "What nbdev writes of the configuration is as nbdev writes it, so that a build leaves the checkout clean"
    import nbdev.quarto

    file = NBS / 'nbdev.yml'
    before = file.read_text()
    try:
        file.unlink()
        nbdev.quarto.refresh_quarto_yml()
        assert file.read_text() == before
    finally:
        file.write_text(before)


def test_workflow_is_valid():
    "The jobs on GitHub: actions with versions, commands that exist here, Python 3.11 to 3.13"
    targets = re.findall(r'^(\w+):', (ROOT / 'Makefile').read_text(), re.M)
    for file in (ROOT / '.github' / 'workflows').glob('*.y*ml'):
        flow = yaml.safe_load(file.read_text())
        assert flow['name'] and set(flow) >= {'jobs', True}  # YAML 1.1 reads `on` as true
        for job in flow['jobs'].values():
            assert job['runs-on'] and all('uses' in s or 'run' in s for s in job['steps'])
            for step in job['steps']:
                assert re.fullmatch(r'[\w.-]+/[\w./-]+@v\d+', step.get('uses', 'a/b@v1')), step
                assert set(re.findall(r'\bmake (\w+)', step.get('run', ''))) <= set(targets), step
    tests = yaml.safe_load((ROOT / '.github' / 'workflows' / 'test.yml').read_text())
    assert tests['jobs']['test']['strategy']['matrix']['python'] == ['3.11', '3.12', '3.13']
