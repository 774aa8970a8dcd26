"Everything about the package comes from settings.ini; pyproject.toml names what is set here"

from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

parser = ConfigParser(delimiters=['='])
parser.read('settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
assert f'name = "{cfg["lib_name"]}"' in Path('pyproject.toml').read_text(), (
    'settings.ini and pyproject.toml differ in `name`'
)

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    author=cfg['author'],
    author_email=cfg['author_email'],
    license='Apache-2.0',
    keywords=cfg['keywords'],
    python_requires='>=' + cfg['min_python'],
    long_description=Path('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=[cfg['lib_path'] + '*']),
    package_data={cfg['lib_name']: ['presets/*.yaml', 'experiments/*.ipynb']},
    install_requires=cfg['requirements'].split(),
    extras_require={
        k.removesuffix('_requirements'): v.split() for k, v in cfg.items() if k.endswith('_requirements')
    },
    entry_points={
        'console_scripts': cfg['console_scripts'].split(),
        'nbdev': [f'{cfg["lib_name"]}={cfg["lib_path"]}._modidx:d'],
    },
)
