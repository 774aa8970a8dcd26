"JupyterLab as its users have it: a server of its own, and a notebook in a window of Chromium"

import json, os, secrets, socket, subprocess, urllib.request

import nbformat

from conftest import BIN, until


def write_notebook(file, cells):
    "A notebook of these cells, and its file; those that raise an error on purpose don't stop the others"
    nb = nbformat.v4.new_notebook()
    nb.metadata.kernelspec = dict(name='python3', display_name='python3', language='python')
    for source in map(str.strip, cells):
        tags = ['raises-exception'] if 'raise ' in source else []
        nb.cells.append(nbformat.v4.new_code_cell(source, metadata=dict(tags=tags)))
    nbformat.write(nb, file)
    return file


class Lab:
    "A JupyterLab of its own, which shows every cell of a notebook, in view or not"

    def __init__(self, scratch, folder, env=os.environ):
        self.scratch, self.folder, self.outer, self.token = scratch, folder, env, secrets.token_hex(16)
        settings = scratch / 'jupyterlab_settings_dir' / '@jupyterlab' / 'notebook-extension'
        settings.mkdir(parents=True)
        (settings / 'tracker.jupyterlab-settings').write_text('{"windowingMode": "none"}')
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            self.port = s.getsockname()[1]
        self.address = f'http://127.0.0.1:{self.port}'
        with open(scratch / 'said', 'w') as said:
            self.server = subprocess.Popen(self.command(), env=self.env(), stdout=said, stderr=said)
        until(self.answers, 60)

    def command(self):
        options = {
            'ip': '127.0.0.1',
            'port': self.port,
            'ServerApp.port_retries': 0,
            'IdentityProvider.token': self.token,
            'ServerApp.root_dir': self.folder,
            'LabApp.news_url': '',
            'LabApp.check_for_updates_class': 'jupyterlab.NeverCheckForUpdate',
        }
        options = [f'--{name}={value}' for name, value in options.items()]
        return [BIN / 'jupyter', 'lab', '--no-browser', '--allow-root', *options]

    def env(self):
        places = 'JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'JUPYTERLAB_SETTINGS_DIR'
        return self.outer | {k: str(self.scratch / k.lower()) for k in (*places, 'IPYTHONDIR')}

    def answers(self):
        assert self.server.poll() is None, (self.scratch / 'said').read_text()
        try:
            return self.ask('') is not None
        except OSError:
            return False

    def ask(self, path):
        return json.load(urllib.request.urlopen(f'{self.address}/api/{path}?token={self.token}', timeout=5))

    def ready(self, name):
        "Whether the notebook's kernel has started and its page is connected to it"
        kernels = [s['kernel'] for s in self.ask('sessions') if s['path'] == name]
        return any(k['execution_state'] == 'idle' and k['connections'] for k in kernels)

    def stop(self):
        self.server.terminate()
        self.server.wait(30)


class Notebook:
    "A notebook in a window of 1,000 pixels, and what its reader does with keys and menus"

    def __init__(self, lab, browser, file):
        self.lab, self.name, self.file = lab, str(file.relative_to(lab.folder)), file
        self.page = browser.new_page(viewport=dict(width=1000, height=3000))
        self.page.set_default_timeout(60_000)
        self.open()

    def open(self):
        self.page.goto(f'{self.lab.address}/lab/tree/{self.name}?token={self.lab.token}&reset')
        self.page.wait_for_selector('.jp-Notebook .jp-CodeCell')
        # JupyterLab draws the notebook first, and asks one who runs cells before there is a kernel for one
        until(lambda: self.lab.ready(self.name))
        self.page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for()

    def menu(self, name, command):
        self.page.get_by_role('menuitem', name=name, exact=True).click()
        self.page.locator(f'.lm-Menu [data-command="{command}"]').click()

    def run_all(self):
        self.menu('Run', 'runmenu:run-all')
        self.page.wait_for_selector('text=all cells have run', timeout=120_000)

    def restart(self):
        self.menu('Kernel', 'kernelmenu:restart')
        self.page.get_by_role('button', name='Confirm Kernel Restart').click()

    def save(self):
        before = self.file.stat().st_mtime_ns
        self.menu('File', 'docmanager:save')
        until(lambda: self.file.stat().st_mtime_ns != before, 20)

    def output(self, inside):
        "The output that has this in it"
        return self.page.locator('.jp-OutputArea-output', has=self.page.locator(inside))

    def text(self):
        "All that the outputs show"
        return '\n'.join(self.page.locator('.jp-Cell-outputArea').all_inner_texts())

    def wait(self, text, seconds=30):
        until(lambda: text in self.text(), seconds)
