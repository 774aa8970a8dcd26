"Execute notebooks in place; keep outputs worth reading: no standard error, of live boxes the still picture"

import argparse, os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbdev.clean import clean_nb

LIVE = 'application/vnd.jupyter.widget-view+json'


def keep(output):
    "The output without what lives in a kernel only; None if nothing is left that is worth reading"
    if output.output_type == 'stream':
        return output if output.name == 'stdout' and output.text.strip() else None
    data = output.get('data', {})
    if data.pop(LIVE, None) and 'text/html' not in data:
        return None  # a progress bar
    if 'image/png' in data:
        data.pop('image/jpeg', None)  # Pillow gives both
    return output


def execute(file):
    nb = nbformat.read(file, 4)
    NotebookClient(
        nb,
        timeout=900,
        kernel_name='python3',
        store_widget_state=False,
        resources=dict(metadata=dict(path=str(file.parent))),
    ).execute()
    for cell in nb.cells:
        if cell.cell_type == 'code':
            cell.outputs = [o for o in map(keep, cell.outputs) if o]
    clean_nb(nb, allowed_cell_metadata_keys=['tags'])
    nbformat.write(nb, file)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('notebooks', nargs='+', type=Path)
    os.environ['TQDM_DISABLE'] = '1'
    for file in parser.parse_args().notebooks:
        execute(file)
        print(file, f'{file.stat().st_size / 1000:.0f} KB')
