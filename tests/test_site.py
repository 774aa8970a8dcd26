"The docs site, built without Quarto and walked in a browser; and what can be checked of the Quarto build without Quarto"

import functools, html, importlib, inspect, os, re, shutil, subprocess, sys, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag, urlsplit

import pytest, yaml

from conftest import BROWSER, ROOT
from test_package import MODULES, NOTEBOOKS

NBS = ROOT / 'nbs'
SIDEBAR = yaml.safe_load((NBS / 'sidebar.yml').read_text())['website']['sidebar']['contents']
IN_SIDEBAR = [NBS / f for section in SIDEBAR for f in section['contents']]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The built site, from a copy of the checkout"
    copy = tmp_path_factory.mktemp('docs') / 'repo'
    shutil.copytree(
        ROOT,
        copy,
        symlinks=True,
        ignore=shutil.ignore_patterns(
            '.*', 'runs', 'build', '_proc', '_build', '_docs', '__pycache__', '*.egg-info'
        ),
    )
    done = subprocess.run(
        [sys.executable, 'docs/build.py'],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {'PYTHONPATH': f'{copy}/docs'},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return copy / '_build' / 'html'


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


def walk(site, base, page, pages=None):
    "Open every page; what is wrong, and how many pictures and equations there are"
    wrong, links, ids, found = [], {}, {}, dict(images=0, equations=0)
    page.on('response', lambda r: r.status >= 400 and wrong.append(('status', r.status, r.url)))
    page.on(
        'request',
        lambda r: (
            not r.url.startswith((base, 'data:', 'blob:')) and wrong.append(('external request', r.url))
        ),
    )
    page.on('console', lambda m: m.type == 'error' and wrong.append(('console', m.text)))
    page.on('pageerror', lambda e: wrong.append(('script', str(e))))
    for file in pages or sorted(site.rglob('*.html')):
        url = f'{base}/{file.relative_to(site).as_posix()}'
        page.goto(url, wait_until='load')
        page.evaluate('window.MathJax?.startup?.promise')
        links[url] = page.eval_on_selector_all('a[href]', 'all => all.map(a => a.href)')
        ids[url] = set(page.eval_on_selector_all('[id]', 'all => all.map(e => e.id)'))
        images = page.evaluate(
            'Promise.all([...document.images].map(i => { i.loading = "eager"; return i.decode().then(() => null, () => i.src.slice(0, 80)) }))'
        )
        wrong += [('image', url, src) for src in images if src]
        found['images'] += len(images)
        found['equations'] += page.locator('mjx-container').count()
        wrong += [('equation', url)] * page.locator('mjx-merror').count()
        text = page.evaluate(
            '[...document.querySelectorAll("article p, article li, article td, article h1, article h2, article h3")].map(e => e.innerText).join("\\n")'
        )
        wrong += [
            ('markup', url, m) for m in re.findall(r':::|\{#|\{\.|#\| |\[@\w+|\{cite|\$\$|\\mathcal', text)
        ]
    for url, out in links.items():
        for link in out:
            target, fragment = urldefrag(link)
            if not target.startswith(base):
                continue
            file = site / unquote(urlsplit(target).path).lstrip('/')
            if not file.is_file() and not (file / 'index.html').is_file():
                wrong.append(('link', url, link))
            elif fragment and target in ids and unquote(fragment) not in ids[target]:
                wrong.append(('fragment', url, link))
    return wrong, found


@BROWSER
def test_every_page_link_image_and_equation(site, served, browser):
    wrong, found = walk(site, served(site), browser.new_page())
    assert not wrong, wrong[:20]
    assert found['images'] > 60 and found['equations'] > 40
    assert sum(f.stat().st_size for f in site.rglob('*') if f.is_file()) < 20e6
    assert len(list(site.rglob('*.html'))) >= len(IN_SIDEBAR)


@BROWSER
@pytest.mark.parametrize(
    'fault, kind',
    [
        ('<a href="nowhere.html">x</a>', 'link'),
        ('<a href="core.html#nowhere">x</a>', 'fragment'),
        ('<img src="none.png">', 'image'),
        ('<script>throw Error("x")</script>', 'script'),
        ('<script>console.error("x")</script>', 'console'),
        ('<img src="http://127.0.0.2:9/x.png">', 'external request'),
        ('<p>::: {.note}</p>', 'markup'),
    ],
)
def test_the_walk_finds_faults(site, served, browser, tmp_path, fault, kind):
    shutil.copytree(site, tmp_path / 'site')
    file = tmp_path / 'site' / 'glossary.html'
    file.write_text(file.read_text().replace('</article>', f'{fault}</article>'))
    wrong, _ = walk(
        tmp_path / 'site',
        served(tmp_path / 'site'),
        browser.new_page(),
        [file, tmp_path / 'site' / 'core.html'],
    )
    assert kind in [w[0] for w in wrong], wrong


@pytest.mark.parametrize('name', MODULES)
def test_every_public_name_is_in_the_reference(site, name):
    "With its docstring, and all its parameters in the table"
    module, page = importlib.import_module(f'dda_nb.{name}'), (site / f'{name}.html').read_text()
    for public in module.__all__:
        thing = getattr(module, public)
        if not inspect.isfunction(thing) and not inspect.isclass(thing):
            continue
        entry = re.search(rf'<h3>{public}<.*?(?=<h3>|</article>)', page, re.S)
        assert entry, public
        words = html.unescape(re.sub('<[^>]+>', '', entry[0])).replace('’', "'")
        assert re.search(r'\w+', thing.__doc__)[0] in words, public
        if inspect.isfunction(thing):
            assert not [
                k
                for k in inspect.signature(thing).parameters
                if not re.search(rf'<td[^>]*><p>{k}</p></td>', entry[0])
            ], public


@BROWSER
def test_search_finds_a_function(site, served, browser):
    page = browser.new_page()
    page.goto(served(site) + '/search.html?q=keep_similar')
    page.wait_for_selector('#search-results li a')
    assert 'filtering.html' in ' '.join(
        page.eval_on_selector_all('#search-results li a', 'all => all.map(a => a.href)')
    )


OVERLAPS = '''() => {
  const seen = [...document.querySelectorAll("article p, article pre, article table, article img, article h1, article h2, article h3, article li, article dl > dt")].filter(e => e.offsetParent && !e.closest("td"));
  const boxes = seen.map(e => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width > 1 && b.height > 1);
  const bad = [];
  for (let i = 1; i < boxes.length; i++) {
    const [a, p] = boxes[i - 1], [b, q] = boxes[i];
    if (a.contains(b) || b.contains(a)) continue;
    const w = Math.min(p.right, q.right) - Math.max(p.left, q.left), h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (w > 2 && h > 2) bad.push([a.tagName, a.innerText.slice(0, 40), b.tagName, b.innerText.slice(0, 40)]);
  }
  return [bad, document.documentElement.scrollWidth - document.documentElement.clientWidth];
}'''


@BROWSER
@pytest.mark.parametrize('scheme, width', [('light', 1400), ('dark', 1400), ('light', 400)])
def test_nothing_overlaps_and_nothing_sticks_out(site, served, browser, scheme, width):
    "Blocks of text, tables and pictures do not lie on each other, no page is wider than the window, and words stand out from the ground"
    context = browser.new_context(color_scheme=scheme, viewport=dict(width=width, height=900))
    page, base = context.new_page(), served(site)
    for file in sorted(site.rglob('*.html')):
        page.goto(f'{base}/{file.relative_to(site).as_posix()}')
        page.evaluate('window.MathJax?.startup?.promise')
        overlaps, wider = page.evaluate(OVERLAPS)
        assert not overlaps and wider <= 0, (file.name, overlaps[:5], wider)
    page.goto(f'{base}/synthesis.html')
    ground, ink = (
        sum(map(int, re.findall(r'\d+', page.evaluate(f'getComputedStyle(document.body).{what}'))[:3])) / 3
        for what in ('backgroundColor', 'color')
    )
    assert (ground > 200 > 100 > ink) if scheme == 'light' else (ground < 60 < 150 < ink)
    page.screenshot(
        path=os.environ.get('DDA_SCREENSHOTS', str(site.parent)) + f'/synthesis-{scheme}-{width}.png'
    )
    context.close()


def test_every_page_has_its_place():
    "The sidebar names every notebook and page, each once, and nothing that is not there"
    assert all(f.exists() for f in IN_SIDEBAR)
    assert sorted(IN_SIDEBAR) == sorted([*NOTEBOOKS, *NBS.glob('*.md')])


def test_quarto_is_configured():
    "Its files parse and name files that exist; callouts, divs and references are well-formed"
    quarto = yaml.safe_load((ROOT / '_quarto.yml').read_text())
    assert (NBS / '_quarto.yml').resolve() == ROOT / '_quarto.yml'
    for file in [
        *quarto['metadata-files'],
        quarto['bibliography'],
        quarto['format']['html']['css'],
        quarto['website']['favicon'],
    ]:
        assert (NBS / file).is_file(), file
    for file in quarto['metadata-files']:
        yaml.safe_load((NBS / file).read_text())
    known = set(re.findall(r'^@\w+\{([\w-]+),', (NBS / 'references.bib').read_text(), re.M))
    for file in IN_SIDEBAR:
        text = markdown_of(file)
        divs = re.findall(r'^(:{3,})(.*)$', text, re.M)
        opened = [d[1].strip() for d in divs if d[1].strip()]
        assert len(opened) == len(divs) - len(opened) and all(
            re.fullmatch(r'\{(#refs|\.callout-(note|tip|important|caution|warning).*)\}', d) for d in opened
        ), (file, opened)
        cited = {k for group in re.findall(r'\[(@[^\]]+)\]', text) for k in re.findall(r'@([\w-]+)', group)}
        assert cited <= known, (file, cited - known)
        for label in re.findall(r'(?<![\w`\[;])@((?:fig|eq|tbl|sec)-[\w-]+)', text):
            assert '{#' + label in text or f'label: {label}' in text, (file, label)
        for path in re.findall(r'github\.com/dda-nb/dda_nb/blob/main/([^)\s]+)\)', text):
            assert (ROOT / path).exists(), (file, path)
        for link in re.findall(r'\]\(((?!https?:|#)[^)\s]+)\)', text):
            assert (file.parent / link.split('#')[0]).exists(), (file, link)


def test_nbdev_has_nothing_to_change():
    "The part of the configuration that nbdev writes is as nbdev writes it, so that a build leaves the checkout clean"
    import nbdev.quarto

    file = NBS / 'nbdev.yml'
    before = file.read_text()
    try:
        file.unlink()
        nbdev.quarto.refresh_quarto_yml()
        assert file.read_text() == before
    finally:
        file.write_text(before)


def test_every_reference_is_cited():
    text = '\n'.join(map(markdown_of, IN_SIDEBAR))
    known = re.findall(r'^@\w+\{([\w-]+),', (NBS / 'references.bib').read_text(), re.M)
    assert not [k for k in known if f'@{k}' not in text]


def markdown_of(file):
    if file.suffix == '.md':
        return file.read_text()
    import nbformat

    return '\n'.join(
        re.sub(r'```.*?```', '', c.source, flags=re.S)
        for c in nbformat.read(file, 4).cells
        if c.cell_type == 'markdown'
    )


def test_workflow_is_valid():
    "The jobs on GitHub: actions with versions, commands that exist here, Python 3.11 to 3.13"
    for file in (ROOT / '.github' / 'workflows').glob('*.y*ml'):
        flow = yaml.safe_load(file.read_text())
        assert flow['name'] and set(flow) >= {'jobs', True}  # YAML 1.1 reads `on` as true
        for job in flow['jobs'].values():
            assert job['runs-on'] and all('uses' in s or 'run' in s for s in job['steps'])
            for step in job['steps']:
                if 'uses' in step:
                    assert re.fullmatch(r'[\w.-]+/[\w./-]+@v\d+', step['uses']), step
                for target in re.findall(r'\bmake (\w+)', step.get('run', '')):
                    assert re.search(rf'^{target}:', (ROOT / 'Makefile').read_text(), re.M), target
    tests = yaml.safe_load((ROOT / '.github' / 'workflows' / 'test.yml').read_text())
    assert tests['jobs']['test']['strategy']['matrix']['python'] == ['3.11', '3.12', '3.13']
