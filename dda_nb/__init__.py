"Data-free knowledge distillation with diverse diffusion augmentation; a folder is a stage, a module one idea"
from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules

__version__ = version('dda_nb')


def offers(package, *elsewhere):
    "`__getattr__` and `__dir__` of a folder: its modules and their public names, and those of other folders, looked up when asked for"

    def modules(folder):
        return [m.name for m in iter_modules(import_module(folder).__path__) if m.name != '__main__']

    def names(folder):
        return {n: m for m in modules(folder) for n in getattr(import_module(f'{folder}.{m}'), '__all__', ())}

    def look_up(name):
        if name in modules(package):
            return import_module(f'{package}.{name}')
        for folder in (package, *elsewhere) if not name.startswith('_') else ():
            if home := names(folder).get(name):
                return getattr(import_module(f'{folder}.{home}'), name)
        raise AttributeError(f'module {package!r} has no attribute {name!r}')

    return look_up, lambda: sorted([*modules(package), *names(package)])
