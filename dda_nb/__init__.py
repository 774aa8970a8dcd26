"Data-free knowledge distillation with diverse diffusion augmentation; a folder is a stage, a module one idea"
from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules

__version__ = version('dda_nb')


def offers(package, *elsewhere):
    "`__getattr__` and `__dir__` of a folder: its modules and their public names, and those that lie elsewhere, looked up when asked for"

    def modules(place):
        return [m.name for m in iter_modules(getattr(import_module(place), '__path__', ())) if m.name != '__main__']

    def names(place):
        homes = [place, *(f'{place}.{m}' for m in modules(place))]
        return {name: home for home in homes for name in getattr(import_module(home), '__all__', ())}

    def look_up(name):
        if name in modules(package):
            return import_module(f'{package}.{name}')
        for place in (package, *elsewhere) if not name.startswith('_') else ():
            if home := names(place).get(name):
                return getattr(import_module(home), name)
        raise AttributeError(f'module {package!r} has no attribute {name!r}')

    return look_up, lambda: sorted([*modules(package), *names(package)])
