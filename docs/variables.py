"How long variables live, for `style.py`; nothing is run"

import ast
from collections import defaultdict
from itertools import pairwise


class Mentions(ast.NodeVisitor):
    "Where variables are set and used; a scope is a function that is in no other, or all that is in none"

    def __init__(self, tree):
        self.outside = self.scope = defaultdict(list)  # name → [(line, whether it is set there)]
        self.scopes = [self.outside]
        self.visit(tree)

    def visit_FunctionDef(self, node):
        if self.scope is not self.outside:
            return self.generic_visit(node)
        self.scope = defaultdict(list)
        self.scopes.append(self.scope)
        self.generic_visit(node)
        self.scope = self.outside

    def visit_Name(self, node):
        self.scope[node.id].append((node.lineno, isinstance(node.ctx, ast.Store)))

    def visit_arg(self, node):
        self.scope[node.arg].append((node.lineno, True))
        self.generic_visit(node)


def lives(tree):
    "For each time a variable is set: its name, the line, and how many lines it is then used in"
    for scope in Mentions(tree).scopes:
        for name, places in scope.items():
            starts = sorted({p for p in places if p[1]})
            for start, end in pairwise([*starts, (float('inf'), True)]):
                last = max(p for p in places if start <= p < end)
                yield name, start[0], last[0] - start[0] + 1
