#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Parse reStructuredText and print what docutils has to say about it.

The documents are written for Sphinx, as the kernel's are.  Of what Sphinx adds,
toctree and :doc: are known here, and checked: what they name must exist.
"""

import os
import sys

import docutils.core
import docutils.nodes
import docutils.parsers.rst
import docutils.parsers.rst.directives
import docutils.parsers.rst.roles
import docutils.utils


def missing(source, name):
    path = os.path.join(os.path.dirname(source), name + '.rst')
    return not os.path.exists(path)


class Toctree(docutils.parsers.rst.Directive):
    has_content = True
    option_spec = {'maxdepth': int,
                   'titlesonly': docutils.parsers.rst.directives.flag}

    def run(self):
        source = self.state.document.current_source
        return [self.state.document.reporter.error(
                    'toctree: no document "%s"' % name, line=self.lineno)
                for name in self.content if missing(source, name)]


def doc(role, rawtext, text, lineno, inliner, options=None, content=None):
    name = text.rsplit('<', 1)[-1].rstrip('>')
    if missing(inliner.document.current_source, name):
        msg = inliner.reporter.error('no document "%s"' % name, line=lineno)
        return [inliner.problematic(rawtext, rawtext, msg)], [msg]
    return [docutils.nodes.emphasis(rawtext, text)], []


docutils.parsers.rst.directives.register_directive('toctree', Toctree)
docutils.parsers.rst.roles.register_local_role('doc', doc)

status = 0
for source in sys.argv[1:]:
    with open(source, encoding='utf-8') as f:
        text = f.read()
    try:
        docutils.core.publish_doctree(
            text, source_path=source,
            settings_overrides={'report_level': 1, 'halt_level': 5,
                                'file_insertion_enabled': False,
                                'raw_enabled': False})
    except docutils.utils.SystemMessage as e:
        print('%s: %s' % (source, e))
        status = 1
sys.exit(status)
