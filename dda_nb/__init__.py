"Data-free knowledge distillation with diverse diffusion augmentation; a folder is a stage, a module one idea"
from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules

__version__ = version('dda_nb')


def offers(package, *elsewhere):
    "`__getattr__` and `__dir__` of a folder: the public names of its modules, and of other folders, looked up when asked for"
    def names(folder):
        modules = [f'{folder}.{m.name}' for m in iter_modules(import_module(folder).__path__) if m.name != '__main__']
        return {n: m for m in modules for n in getattr(import_module(m), '__all__', ())}

    def look_up(name):
        if not name.startswith('__'):
            for folder in (package, *elsewhere):
                if home := names(folder).get(name):
                    return getattr(import_module(home), name)
        raise AttributeError(f'module {package!r} has no attribute {name!r}')

    return look_up, lambda: sorted(names(package))
