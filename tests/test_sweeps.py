"Sweeps: workers, nodes and drivers that are killed, an object store, notebooks of the user's own, and whatever is given as a parameter"

import contextlib, os, shutil, signal, socket, subprocess, sys, termios, threading, time

import nbformat, psutil, pytest, torch
from safetensors.torch import load_file

import dda_nb.sweeps
from conftest import BIN, until
from dda_nb.core import place
from dda_nb.pipeline import read_results
from dda_nb.runs import gather, table
from dda_nb.sweeps import Sweep, attempt, dda_sweep, run_sweep, tasks_of

WAIT = '''import json, time
for i in range(int(10 * seconds)):
    print(json.dumps(dict(stage='wait', step=i, total=int(10 * seconds), seconds=i / 10)), file=open('log.jsonl', 'a'))
    time.sleep(.1)
json.dump(dict(y=x + seed), open('results.json', 'w'))'''


def write_notebook(file, source, parameters):
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata=dict(tags=['parameters'])),
        nbformat.v4.new_code_cell(source),
    ]
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=cells,
            metadata=dict(kernelspec=dict(name='python3', display_name='python3', language='python')),
        ),
        file,
    )


@pytest.fixture
def waiting(tmp_path):
    "A sweep of six runs of a notebook that waits"
    write_notebook(tmp_path / 'wait.ipynb', WAIT, "x = 0\nseed = 0\nseconds = 1.")
    (tmp_path / 'wait.yaml').write_text(
        'notebook: wait.ipynb\nfixed: {seconds: 2}\ngrid: {x: [10, 20, 30]}\nseeds: [0, 1]\n'
    )
    return tmp_path


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def start_node(folder, *args):
    "A Ray node on this machine with one core; its processes"
    said = open(folder / 'ray.said', 'a')
    return subprocess.Popen(
        [
            BIN / 'ray',
            'start',
            '--block',
            '--num-cpus=1',
            '--node-ip-address=127.0.0.1',
            '--object-store-memory=100000000',
            '--disable-usage-stats',
            *args,
        ],
        stdout=said,
        stderr=said,
    )


def stop_node(node):
    "Kill a node with everything that it started, as if its plug were pulled"
    for p in [*psutil.Process(node.pid).children(recursive=True), node]:
        try:
            p.kill()
        except psutil.NoSuchProcess:
            pass
    node.wait()


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "The address of a Ray cluster of two nodes with a core each, and the process of the second"
    folder, port = tmp_path_factory.mktemp('ray'), free_port()
    address = f'127.0.0.1:{port}'
    os.environ['RAY_AUTH_MODE'] = 'disabled'  # a token would be written to the home folder

    def ready(n):
        until(lambda: (folder / 'ray.said').read_text().count('Ray runtime started') == n)

    head = start_node(folder, '--head', f'--port={port}', '--include-dashboard=false')
    ready(1)
    second = start_node(folder, f'--address={address}')
    ready(2)
    yield address, second
    for node in (second, head):
        if node.poll() is None:
            stop_node(node)


def start(folder, *args, address='', out='out'):
    return subprocess.Popen(
        [BIN / 'dda_sweep', 'wait.yaml', '--out', out, *args, *(['--address', address] if address else [])],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # which a shell's background jobs ignore


def kernels(folder):
    "The notebooks that run beneath a folder, whoever started them"

    def mine(p):
        try:
            return 'ipykernel_launcher' in ' '.join(p.cmdline()) and p.cwd().startswith(str(folder))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    return [p for p in psutil.process_iter() if mine(p)]


def runs_on(node, folder):
    try:
        return [p for p in kernels(folder) if node.pid in {q.pid for q in p.parents()}]
    except psutil.NoSuchProcess:
        return []


def done_in(folder):
    "Executed notebooks, and when they were written"
    return {f: f.stat().st_mtime_ns for f in (folder / 'out').glob('*/wait.ipynb')}


def test_a_worker_is_killed_and_a_node_is_stopped(cluster, waiting):
    "Their runs go on elsewhere, in the same sweep"
    address, second = cluster
    run = start(waiting, '--retries', '2', address=address)
    until(lambda: done_in(waiting))
    psutil.Process(until(lambda: kernels(waiting))[0].ppid()).kill()
    until(lambda: runs_on(second, waiting))
    before = done_in(waiting)
    stop_node(second)
    out, err = run.communicate(timeout=200)
    assert (
        run.returncode == 0 and len(done_in(waiting)) == 6 and before.items() <= done_in(waiting).items()
    ), (out, err)
    assert '| 30  | 2      | 30.50 ± 0.71 |' in out, out


def test_the_driver_is_killed_and_others_are_stopped(cluster, waiting):
    "The same command goes on; meanwhile a second sweep in the folder is refused"
    run = start(waiting, address=cluster[0])
    until(lambda: done_in(waiting) and kernels(waiting))
    second = start(waiting)
    assert 'is at work in this folder' in second.communicate(timeout=60)[1] and second.returncode == 2
    run.kill()
    run.communicate()
    until(lambda: not kernels(waiting))
    before = done_in(waiting)
    run = start(waiting, address=cluster[0])
    until(lambda: kernels(waiting))
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (
        run.returncode == 130
        and 'dda_sweep: stopped; the same command goes on from here' in err
        and 'Traceback' not in err
    ), err
    assert not kernels(waiting) and before.items() <= done_in(waiting).items()
    run = start(waiting, address=cluster[0])
    until(lambda: kernels(waiting))
    while run.poll() is None:
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two that come while Ray holds the process are one
    run.communicate(timeout=60)
    assert run.returncode == -signal.SIGINT  # the second Ctrl-C did not wait for the first
    until(lambda: not kernels(waiting))
    before = done_in(waiting)
    done = start(waiting, address=cluster[0])
    said = done.communicate(timeout=200)
    assert done.returncode == 0 and before.items() <= done_in(waiting).items(), said
    rows = gather(waiting / 'out')
    assert (
        sorted(zip(rows.x, rows.seed)) == [(x, s) for x in (10, 20, 30) for s in (0, 1)]
        and (rows.y == rows.x + rows.seed).all()
        and not rows.attrs['failed']
    )


@pytest.fixture
def by_turns(monkeypatch):
    "No Ray here"
    monkeypatch.setattr(dda_nb.sweeps, '_has_ray', lambda: False)


@pytest.fixture(scope='module')
def bucket():
    "The URL of a bucket on an S3 server of our own"
    from moto.server import ThreadedMotoServer
    import boto3

    server = ThreadedMotoServer('127.0.0.1', 0)
    server.start()
    for k, v in dict(
        AWS_ENDPOINT_URL='http://{}:{}'.format(*server.get_host_and_port()),
        AWS_ACCESS_KEY_ID='mine',
        AWS_SECRET_ACCESS_KEY='mine',
        AWS_DEFAULT_REGION='us-east-1',
    ).items():
        os.environ[k] = v
    boto3.client('s3').create_bucket(Bucket='bucket')
    yield 's3://bucket'
    server.stop()


def test_a_sweep_of_ours_into_an_object_store(bucket, command, tmp_path):
    "Ray on this machine; notebooks, rows and students come to the store, and the table from there"
    (tmp_path / 'smoke.yaml').write_text('preset: smoke\nfixed: {teacher_seed: 0}\ngrid: {copies: [0, 2]}\n')
    done = command('dda_sweep', tmp_path / 'smoke.yaml', '--out', f'{bucket}/swept', '--track', 'tensorboard')
    assert done.returncode == 0, done.stderr
    runs = [f for f in place(f'{bucket}/swept').iterdir()]
    assert len(runs) == 2
    for run in runs:
        names = {f.name for f in run.iterdir()}
        assert {
            'dda.ipynb',
            'results.json',
            'student.safetensors',
            'config.yaml',
            'log.jsonl',
        } < names and not [n for n in names if n.startswith(('bank', 'variations', '.'))], names
        assert [f for f in run.rglob('*') if 'tfevents' in f.name]
        assert read_results(run)['threads'] == 1 and nbformat.reads((run / 'dda.ipynb').read_text(), 4).cells
    for out in (f'{bucket}/table.md', tmp_path / 'table.parquet'):
        assert command('dda_table', f'{bucket}/swept', '--out', out).returncode == 0
    assert '| no_aug | 0 ' in place(f'{bucket}/table.md').read_text()
    import pandas

    assert (
        pandas.read_parquet(tmp_path / 'table.parquet').student_acc.tolist()
        == table(f'{bucket}/swept').student_acc.tolist()
    )
    again = command('dda_sweep', tmp_path / 'smoke.yaml', '--out', f'{bucket}/swept')
    assert again.returncode == 0 and 'done, student' not in again.stderr


def test_stores_that_cannot_be_reached(bucket, tmp_path, capsys):
    write_notebook(tmp_path / 'own.ipynb', '', 'x = 1')
    (tmp_path / 'own.yaml').write_text('notebook: own.ipynb\n')
    for out, line in {
        's3://another/place': 'cannot write to s3://another/place: The specified bucket does not exist',
        'nowhere://a': "Unsupported filesystem: 'nowhere'",
        'gs://a/b': 'gcsfs',
    }.items():
        assert dda_sweep([str(tmp_path / 'own.yaml'), '--out', out]) == 2
        said = capsys.readouterr().err
        assert line in said and said.count('\n') == 1, said


STRANGE = [
    'it\'s "so"',
    'two\nlines',
    "'); import os; os.abort()  #",
    '{x} {{y}} %s \\n \\',
    '"""',
    'ünïcode 🙂',
    '',
    '__import__("os").abort()',
    '$(exit 1)`exit 1`',
    'nan',
    'None',
    ' \t',
]


def test_strings_arrive_as_they_are(by_turns, tmp_path):
    write_notebook(
        tmp_path / 'own.ipynb',
        "import json\njson.dump(dict(a=a, b=b), open('results.json', 'w'))",
        "a = ''\nb = [\n    1,\n]",
    )
    tasks = tasks_of(
        Sweep(
            settings=[dict(a='x', b=[STRANGE, dict(zip(STRANGE, STRANGE)), 1.5, True, None])],
            notebook=str(tmp_path / 'own.ipynb'),
        )
    )
    tasks += tasks_of(Sweep(settings=[dict(a='\n'.join(STRANGE))], notebook=str(tmp_path / 'own.ipynb')))
    assert not run_sweep(tasks, tmp_path / 'o{ut}')
    rows = [read_results(tmp_path / 'o{ut}' / t.name) for t in tasks]
    assert rows[0]['b'] == tasks[0].values['b'] and rows[1]['a'] == '\n'.join(STRANGE)
    ours = tasks_of(Sweep(settings=[dict(arm='\n'.join(STRANGE), copies=0)], preset='smoke'))
    row, error = attempt(ours[0], tmp_path / 'ours')
    assert not error and row['arm'] == '\n'.join(STRANGE)


def test_what_a_notebook_lacks_is_refused_before_the_first_run(tmp_path, capsys):
    write_notebook(tmp_path / 'own.ipynb', '', 'rate = 1\nseed = 0')
    (tmp_path / 'own.yaml').write_text('notebook: own.ipynb\nlist: [{rate: 1}, {rte: 2}]\n')
    (tmp_path / 'ours.yaml').write_text('preset: smoke\nlist: [{copies: 1}, {strengh: .5}]\n')
    for name, line in {
        'own.yaml': "unknown parameter of own.ipynb 'rte'; did you mean rate",
        'ours.yaml': "unknown field 'strengh'; did you mean strength",
    }.items():
        assert dda_sweep([str(tmp_path / name), '--out', str(tmp_path / 'out')]) == 2
        said = capsys.readouterr()
        assert (
            line in said.err
            and said.err.count('\n') == 1
            and not said.out
            and not (tmp_path / 'out').exists()
        ), said


def test_trouble_stays_with_its_run(tmp_path):
    "A full disk, an unreadable folder, a row cut short, a kernel that dies: each is reported, the others are done, and the next call makes up for it"
    write_notebook(
        tmp_path / 'own.ipynb',
        "import json, os, pathlib\nif x == 'dies' and not os.path.exists('died'): pathlib.Path('died').touch(); os.kill(os.getpid(), 9)\n"
        "print('.' * 200_000)\njson.dump(dict(y=1), open('results.json', 'w'))",
        "x = ''",
    )
    sweep = Sweep(
        settings=[dict(x=x) for x in ('full', 'unreadable', 'damaged', 'dies', 'fine')],
        notebook=str(tmp_path / 'own.ipynb'),
    )
    names, out = {t.values['x']: t.name for t in tasks_of(sweep)}, tmp_path / 'out'
    for x in ('full', 'damaged'):
        (out / names[x]).mkdir(parents=True)
    (out / names['unreadable']).write_text('not a folder')
    (out / names['damaged'] / 'results.json').write_text('{"y": 1, "half')
    (tmp_path / 'own.yaml').write_text(f'notebook: own.ipynb\ngrid: {{x: {list(names)}}}\n')
    script = 'import sys, dda_nb.sweeps as s\ns._has_ray = lambda: False\nsys.exit(s.dda_sweep(["own.yaml", "--out", "out", "--retries", "0"]))'
    call = lambda *before: subprocess.run(
        [*before, sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    done = (
        call(
            'unshare',
            '-Urm',
            'sh',
            '-c',
            f'mount -t tmpfs -o size=100k tmpfs out/{names["full"]} && exec "$@"',
            '-',
        )
        if shutil.which('unshare')
        else call()
    )
    if 'unshare' in done.stderr or 'mount' in done.stderr:
        pytest.skip('no file system of its own can be mounted here')
    assert (
        done.returncode == 1 and '2 of 5 runs are done' in done.stdout and 'Traceback' not in done.stderr
    ), done
    for x, line in dict(
        full='No space left on device', unreadable='File exists', dies='the process that computed died'
    ).items():
        assert [l for l in done.stdout.splitlines() if l.startswith(f'- {names[x]}: ') and line in l], (
            done.stdout
        )
    assert (
        f'{names["damaged"]}: its row was cut short or altered' in done.stderr
        and (out / names['damaged'] / 'results.damaged.json').read_text() == '{"y": 1, "half'
    )
    (out / names['unreadable']).unlink()
    again = call()
    assert again.returncode == 0 and sorted(gather(out).x) == sorted(names), again


def test_on_a_terminal(tmp_path):
    "A line for each notebook that runs, which goes when it ends, and a bar for all"
    write_notebook(tmp_path / 'wait.ipynb', WAIT, "x = 0\nseed = 0\nseconds = 1.")
    (tmp_path / 'wait.yaml').write_text('notebook: wait.ipynb\nlist: [{x: 1}]\n')
    here, there = os.openpty()
    termios.tcsetwinsize(there, (40, 120))
    script = 'import sys, dda_nb.sweeps as s\ns._has_ray = lambda: False\nsys.exit(s.dda_sweep(["wait.yaml", "--out", "out"]))'
    said = []

    def listen():
        with contextlib.suppress(OSError):  # it ends when nobody holds the other side
            while chunk := os.read(here, 4096):
                said.append(chunk.decode(errors='replace'))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    done = subprocess.run(
        [sys.executable, '-c', script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=there,
        text=True,
        timeout=100,
    )
    os.close(there)
    listener.join(10)
    said = ''.join(said)
    assert done.returncode == 0 and 'wait 5/10' in said and '1/1' in said and 'Traceback' not in said, said


def test_a_run_is_repeated_with_its_threads(command, tmp_path, monkeypatch):
    "`--from` takes as many threads as the row says, whatever the environment says, with and without a notebook"
    small = 'copies=0', 'teacher_epochs=1', 'bank_images=20', 'synth_steps=3', 'distill_steps=6'
    monkeypatch.setenv(
        'OMP_WAIT_POLICY', 'passive'
    )  # two threads that spin while they wait are slow where others want the cores too
    two = command(
        'dda_run',
        'smoke',
        *small,
        '--no-notebook',
        '--out',
        tmp_path / 'two',
        env=os.environ | {'OMP_NUM_THREADS': '2'},
    )
    assert two.returncode == 0 and read_results(tmp_path / 'two')['threads'] == 2, two.stderr
    for i, more in enumerate(([], ['--no-notebook'])):
        assert (
            command('dda_run', '--from', tmp_path / 'two', '--out', tmp_path / str(i), *more).returncode == 0
        )
        assert read_results(tmp_path / str(i))['threads'] == 2
        a, b = (load_file(tmp_path / name / 'student.safetensors') for name in ('two', str(i)))
        assert all(torch.equal(a[k], b[k]) for k in a)
