"Sweeps: what is killed, an object store, notebooks of the user's own, whatever is given as a parameter"

import contextlib, os, shutil, signal, socket, subprocess, sys, termios, threading, time

import nbformat, pandas, psutil, pytest, torch
from safetensors.torch import load_file

from conftest import BIN, until
from dda_nb.core import place
from dda_nb.runs import gather, read_results, table
from dda_nb.sweeps import Sweep, attempt, dda_sweep, run_sweep, sweeping, tasks_of

WAIT = '''import json, time
total = int(10 * seconds)
for i in range(total):
    line = dict(stage='wait', step=i, total=total, seconds=i / 10)
    print(json.dumps(line), file=open('log.jsonl', 'a'))
    time.sleep(.1)
json.dump(dict(y=x + seed), open('results.json', 'w'))'''


def write_notebook(file, source, parameters):
    "A notebook of two cells, the first tagged `parameters`"
    new = nbformat.v4
    cells = [new.new_code_cell(parameters, metadata=dict(tags=['parameters'])), new.new_code_cell(source)]
    kernel = dict(name='python3', display_name='python3', language='python')
    nbformat.write(new.new_notebook(cells=cells, metadata=dict(kernelspec=kernel)), file)


# Ray clusters of several nodes on this machine, which is as much of a cluster as a test can have


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def start_node(folder, *args):
    "A Ray node on this machine with one core; its processes"
    options = '--block', '--num-cpus=1', '--node-ip-address=127.0.0.1', '--object-store-memory=100000000'
    output = open(folder / 'ray.out', 'a')
    command = [BIN / 'ray', 'start', *options, '--disable-usage-stats', *args]
    return subprocess.Popen(command, stdout=output, stderr=output)


def stop_node(node):
    "Kill a node with everything that it started, as if its plug were pulled"
    for p in [*psutil.Process(node.pid).children(recursive=True), node]:
        with contextlib.suppress(psutil.NoSuchProcess):
            p.kill()
    node.wait()


@pytest.fixture(scope='module')
def cluster(tmp_path_factory):
    "The address of a Ray cluster of two nodes with a core each, and the process of the second"
    folder, port = tmp_path_factory.mktemp('ray'), free_port()
    address = f'127.0.0.1:{port}'
    os.environ['RAY_AUTH_MODE'] = 'disabled'  # a token would be written to the home folder

    def wait_for(n):
        until(lambda: (folder / 'ray.out').read_text().count('Ray runtime started') == n)

    head = start_node(folder, '--head', f'--port={port}', '--include-dashboard=false')
    wait_for(1)
    second = start_node(folder, f'--address={address}')
    wait_for(2)
    yield address, second
    for node in (second, head):
        if node.poll() is None:
            stop_node(node)


@pytest.fixture
def waiting(tmp_path):
    "The folder of a sweep of six runs of a notebook that waits"
    write_notebook(tmp_path / 'wait.ipynb', WAIT, 'x = 0\nseed = 0\nseconds = 1.')
    text = 'notebook: wait.ipynb\nfixed: {seconds: 2}\ngrid: {x: [10, 20, 30]}\nseeds: [0, 1]\n'
    (tmp_path / 'wait.yaml').write_text(text)
    return tmp_path


def start(folder, *args, address=''):
    "The sweep `wait.yaml` in a process of its own; Ctrl-C is on, which a shell's background jobs ignore"
    command = [BIN / 'dda_sweep', 'wait.yaml', '--out', 'out', *args]
    return subprocess.Popen(
        command + (['--address', address] if address else []),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def kernels(folder):
    "The notebooks that run beneath a folder, whoever started them"

    def is_beneath(process):
        try:
            command = ' '.join(process.cmdline())
            return 'ipykernel_launcher' in command and process.cwd().startswith(str(folder))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    return [p for p in psutil.process_iter() if is_beneath(p)]


def runs_on(node, folder):
    "The notebooks beneath a folder that a node has started"
    try:
        return [p for p in kernels(folder) if node.pid in {q.pid for q in p.parents()}]
    except psutil.NoSuchProcess:
        return []


def done_in(folder):
    "Executed notebooks, and when they were written"
    return {f: f.stat().st_mtime_ns for f in (folder / 'out').glob('*/wait.ipynb')}


@pytest.mark.slow  # Ray starts a node within 15 seconds, or not at all
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
    after = done_in(waiting)
    assert run.returncode == 0 and len(after) == 6 and before.items() <= after.items(), (out, err)
    assert '| 30  | 2      | 30.50 ± 0.71 |' in out, out


def stopped_by_ctrl_c(folder, address):
    "Start the sweep, press Ctrl-C once when a notebook runs; standard error"
    run = start(folder, address=address)
    until(lambda: kernels(folder))
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    return err


def stopped_by_many(folder, address):
    "The same, with Ctrl-C pressed until it has ended; two that come while Ray holds the process are one"
    run = start(folder, address=address)
    until(lambda: kernels(folder))
    while run.poll() is None:
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)
    run.communicate(timeout=60)
    return run.returncode


@pytest.mark.slow  # Ray starts a node within 15 seconds, or not at all
def test_the_driver_is_killed_and_others_are_stopped(cluster, waiting):
    "The same command goes on; meanwhile a second sweep in the folder is refused"
    address, _ = cluster
    run = start(waiting, address=address)
    until(lambda: done_in(waiting) and kernels(waiting))
    second = start(waiting)
    assert 'is at work in this folder' in second.communicate(timeout=60)[1]
    assert second.returncode == 2
    run.kill()
    run.communicate()
    until(lambda: not kernels(waiting))

    before = done_in(waiting)
    err = stopped_by_ctrl_c(waiting, address)
    assert 'dda_sweep: stopped; the same command goes on from here' in err and 'Traceback' not in err, err
    assert not kernels(waiting) and before.items() <= done_in(waiting).items()
    assert stopped_by_many(waiting, address) == -signal.SIGINT  # the second did not wait for the first
    until(lambda: not kernels(waiting))

    before = done_in(waiting)
    last = start(waiting, address=address)
    printed = last.communicate(timeout=200)
    assert last.returncode == 0 and before.items() <= done_in(waiting).items(), printed
    rows = gather(waiting / 'out')
    assert sorted(zip(rows.x, rows.seed)) == [(x, s) for x in (10, 20, 30) for s in (0, 1)]
    assert (rows.y == rows.x + rows.seed).all() and not rows.attrs['failed']


# An object store


@pytest.fixture(scope='module')
def bucket():
    "The URL of a bucket on an S3 server of our own"
    from moto.server import ThreadedMotoServer
    import boto3

    server = ThreadedMotoServer('127.0.0.1', 0)
    server.start()
    host, port = server.get_host_and_port()
    os.environ['AWS_ENDPOINT_URL'] = f'http://{host}:{port}'
    os.environ['AWS_DEFAULT_REGION'] = 'us-east-1'
    os.environ['AWS_ACCESS_KEY_ID'] = os.environ['AWS_SECRET_ACCESS_KEY'] = 'mine'
    boto3.client('s3').create_bucket(Bucket='bucket')
    yield 's3://bucket'
    server.stop()


def check_record(run):
    "The folder of a run in a store has its record, and not what it was computed from"
    names = {f.name for f in run.iterdir()}
    assert {'dda.ipynb', 'results.json', 'student.safetensors', 'config.yaml', 'log.jsonl'} < names, names
    assert not [n for n in names if n.startswith(('bank', 'variations', '.'))], names
    assert [f for f in run.rglob('*') if 'tfevents' in f.name]
    assert read_results(run)['threads'] == 1
    assert nbformat.reads((run / 'dda.ipynb').read_text(), 4).cells


@pytest.mark.slow
def test_a_sweep_of_ours_into_an_object_store(bucket, command, tmp_path):
    "Ray on this machine; notebooks, rows and students come to the store, and the table from there"
    file, out = tmp_path / 'smoke.yaml', f'{bucket}/swept'
    file.write_text('preset: smoke\nfixed: {teacher_seed: 0}\ngrid: {copies: [0, 2]}\n')
    first = command('dda_sweep', file, '--out', out, '--track', 'tensorboard')
    assert first.returncode == 0, first.stderr
    runs = list(place(out).iterdir())
    assert len(runs) == 2
    for run in runs:
        check_record(run)

    for to in (f'{bucket}/table.md', tmp_path / 'table.parquet'):
        assert command('dda_table', out, '--out', to).returncode == 0
    assert '| no_aug | 0 ' in place(f'{bucket}/table.md').read_text()
    accuracies = pandas.read_parquet(tmp_path / 'table.parquet').student_acc.tolist()
    assert accuracies == table(out).student_acc.tolist()
    again = command('dda_sweep', file, '--out', out)
    assert again.returncode == 0 and 'done, student' not in again.stderr


@pytest.mark.parametrize(
    'out, line',
    {
        's3://another/place': 'cannot write to s3://another/place: The specified bucket does not exist',
        'nowhere://a': "Unsupported filesystem: 'nowhere'",
        'gs://a/b': 'gcsfs',
    }.items(),
)
def test_a_store_that_cannot_be_reached(bucket, tmp_path, capsys, out, line):
    write_notebook(tmp_path / 'own.ipynb', '', 'x = 1')
    (tmp_path / 'own.yaml').write_text('notebook: own.ipynb\n')
    assert dda_sweep([str(tmp_path / 'own.yaml'), '--out', out]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count('\n') == 1, err


# Notebooks of the user's own, and their parameters

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


@pytest.fixture
def by_turns(monkeypatch):
    "No Ray here"
    monkeypatch.setattr(sweeping, '_has_ray', lambda: False)


def test_strings_arrive_as_they_are(by_turns, tmp_path):
    notebook, out = tmp_path / 'own.ipynb', tmp_path / 'o{ut}'
    source = "import json\njson.dump(dict(a=a, b=b), open('results.json', 'w'))"
    write_notebook(notebook, source, "a = ''\nb = [\n    1,\n]")
    nested = [STRANGE, dict(zip(STRANGE, STRANGE)), 1.5, True, None]
    settings = dict(a='x', b=nested), dict(a='\n'.join(STRANGE))
    tasks = [t for s in settings for t in tasks_of(Sweep(settings=[s], notebook=str(notebook)))]
    assert not run_sweep(tasks, out)
    rows = [read_results(out / t.name) for t in tasks]
    assert rows[0]['b'] == nested and rows[1]['a'] == '\n'.join(STRANGE)


def test_strings_arrive_in_the_experiment(tmp_path):
    [task] = tasks_of(Sweep(settings=[dict(arm='\n'.join(STRANGE), copies=0)], preset='smoke'))
    row, error = attempt(task, tmp_path / 'ours')
    assert not error and row['arm'] == '\n'.join(STRANGE)


@pytest.mark.parametrize(
    'text, line',
    [
        (
            'notebook: own.ipynb\nlist: [{rate: 1}, {rte: 2}]\n',
            "unknown parameter of own.ipynb 'rte'; did you mean rate",
        ),
        (
            'preset: smoke\nlist: [{copies: 1}, {strengh: .5}]\n',
            "unknown field 'strengh'; did you mean strength",
        ),
    ],
)
def test_what_a_notebook_lacks_is_refused_before_the_first_run(tmp_path, capsys, text, line):
    write_notebook(tmp_path / 'own.ipynb', '', 'rate = 1\nseed = 0')
    (tmp_path / 'sweep.yaml').write_text(text)
    assert dda_sweep([str(tmp_path / 'sweep.yaml'), '--out', str(tmp_path / 'out')]) == 2
    printed = capsys.readouterr()
    assert line in printed.err, printed
    assert printed.err.count('\n') == 1 and not printed.out, printed
    assert not (tmp_path / 'out').exists()


# Trouble

DIES_ONCE = '''import json, os, pathlib
if x == 'dies' and not os.path.exists('died'):
    pathlib.Path('died').touch()
    os.kill(os.getpid(), 9)
print('.' * 200_000)
json.dump(dict(y=1), open('results.json', 'w'))'''


def by_turns_script(*args):
    "Python that calls `dda_sweep` where Ray isn't installed"
    return (
        'import sys\nfrom dda_nb.sweeps import dda_sweep, sweeping\n'
        f'sweeping._has_ray = lambda: False\nsys.exit(dda_sweep({list(args)!r}))'
    )


def on_a_full_disk(folder):
    "Words before a command that make a folder a disk of 100 kB, for it alone; none where that can't be done"
    mount = f'mount -t tmpfs -o size=100k tmpfs {folder} && exec "$@"'
    return ['unshare', '-Urm', 'sh', '-c', mount, '-'] if shutil.which('unshare') else []


def test_trouble_stays_with_its_run(tmp_path):
    "A full disk, no folder, a row cut short, a dead kernel: each is reported, and the next call repairs it"
    write_notebook(tmp_path / 'own.ipynb', DIES_ONCE, "x = ''")
    kinds, out = ['full', 'unreadable', 'damaged', 'dies', 'fine'], tmp_path / 'out'
    (tmp_path / 'own.yaml').write_text(f'notebook: own.ipynb\ngrid: {{x: {kinds}}}\n')
    tasks = tasks_of(Sweep(settings=[dict(x=x) for x in kinds], notebook=str(tmp_path / 'own.ipynb')))
    names = {t.values['x']: t.name for t in tasks}
    for x in ('full', 'damaged'):
        (out / names[x]).mkdir(parents=True)
    (out / names['unreadable']).write_text('not a folder')
    (out / names['damaged'] / 'results.json').write_text('{"y": 1, "half')
    script = by_turns_script('own.yaml', '--out', 'out', '--retries', '0')

    def call(*before):
        command = [*before, sys.executable, '-c', script]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)

    first = call(*on_a_full_disk(f'out/{names["full"]}'))
    if 'unshare' in first.stderr or 'mount' in first.stderr:
        pytest.skip('no file system of its own can be mounted here')
    assert first.returncode == 1 and '2 of 5 runs are done' in first.stdout, first
    assert 'Traceback' not in first.stderr, first
    for x, line in dict(
        full='No space left on device',
        unreadable='File exists',
        dies='the process that computed died',
    ).items():
        lines = [said for said in first.stdout.splitlines() if said.startswith(f'- {names[x]}: ')]
        assert [said for said in lines if line in said], first.stdout
    assert f'{names["damaged"]}: its row was cut short or altered' in first.stderr
    assert (out / names['damaged'] / 'results.damaged.json').read_text() == '{"y": 1, "half'

    (out / names['unreadable']).unlink()
    again = call()
    assert again.returncode == 0 and sorted(gather(out).x) == sorted(names), again


@contextlib.contextmanager
def terminal():
    "A terminal of 120 columns: the side that a process writes to, and what comes out of the other"
    here, there = os.openpty()
    termios.tcsetwinsize(there, (40, 120))
    chunks = []

    def listen():
        with contextlib.suppress(OSError):  # it ends when nobody holds the other side
            while chunk := os.read(here, 4096):
                chunks.append(chunk.decode(errors='replace'))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    yield there, chunks
    os.close(there)
    listener.join(10)


def test_on_a_terminal(tmp_path):
    "A line for each notebook that runs, which goes when it ends, and a bar for all"
    write_notebook(tmp_path / 'wait.ipynb', WAIT, 'x = 0\nseed = 0\nseconds = 1.')
    (tmp_path / 'wait.yaml').write_text('notebook: wait.ipynb\nlist: [{x: 1}]\n')
    command = [sys.executable, '-c', by_turns_script('wait.yaml', '--out', 'out')]
    with terminal() as (there, chunks):
        done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=there, timeout=100)
    shown = ''.join(chunks)
    assert done.returncode == 0 and 'Traceback' not in shown, shown
    assert 'wait 5/10' in shown and '1/1' in shown, shown


@pytest.mark.slow
def test_a_run_is_repeated_with_its_threads(tmp_path, monkeypatch):
    "`--from` takes as many threads as the row says and not the environment, with and without a notebook"
    small = 'copies=0', 'teacher_epochs=1', 'bank_images=20', 'synth_steps=3', 'distill_steps=6'
    # two threads that spin while they wait are slow where others want the cores too
    monkeypatch.setenv('OMP_WAIT_POLICY', 'passive')
    run, threads = BIN / 'dda_run', os.environ | {'OMP_NUM_THREADS': '2'}
    words = [run, 'smoke', *small, '--no-notebook', '--out', tmp_path / 'two']
    subprocess.run(words, env=threads, check=True, timeout=300)
    assert read_results(tmp_path / 'two')['threads'] == 2
    student = load_file(tmp_path / 'two' / 'student.safetensors')
    for i, more in enumerate(([], ['--no-notebook'])):
        again = tmp_path / str(i)
        subprocess.run([run, '--from', tmp_path / 'two', '--out', again, *more], check=True, timeout=300)
        assert read_results(again)['threads'] == 2
        repeated = load_file(again / 'student.safetensors')
        assert all(torch.equal(student[k], repeated[k]) for k in student)
