// SPDX-License-Identifier: GPL-2.0-or-later
/* Images and what they stand on: see tree-view.h. */
#define _GNU_SOURCE
#include <libsmartcols.h>
#include <locale.h>
#include <unistd.h>

#include "options.h"
#include "tree-view.h"

/* ---- what there is to say ---------------------------------------------------- */

static const char *node_format(const struct vc_node *node)
{
	return node->read ? vc_format_name(node->format) : "unknown";
}

/* To be freed. */
static char *node_state_text(const struct vc_node *node)
{
	char *text = NULL;
	char *p;

	if (node->state == VC_NODE_OPEN) {
		if (asprintf(&text, "open as %s", node->open_as) < 0)
			return NULL;
		return text;
	}
	if (node->open_as) {
		if (asprintf(&text, "%s, open as %s", vc_node_state_name(node->state),
			     node->open_as) < 0)
			return NULL;
	} else {
		text = strdup(vc_node_state_name(node->state));
	}
	for (p = text; p && *p && *p != ','; p++)
		if (*p == '-')
			*p = ' ';
	return text;
}

/* Seen from here if it lies here or below; not to be freed. */
static const char *node_path(const struct vc_node *node)
{
	static char cwd[4096];
	const char *real = node->file.real;
	size_t n;

	if (!cwd[0] && !getcwd(cwd, sizeof(cwd)))
		strcpy(cwd, "?");
	n = strlen(cwd);
	if (n > 1 && !strncmp(real, cwd, n) && real[n] == '/')
		return real + n + 1;
	return real;
}

void tree_view_complain(const struct vc_node *node)
{
	/* Whoever only stands on what is broken does not need a word of its own. */
	if (!vc_node_is_wrong(node) || (node->state == VC_NODE_ORPHAN && node->parent))
		return;
	fputs("vhdclone: ", stderr);
	if (node->state == VC_NODE_CYCLE) {
		print_clean(stderr, node->file.path);
		fputs(": ", stderr);
	}
	print_clean(stderr, node->problem ? node->problem : "out of memory");
	putc('\n', stderr);
}

/* ---- JSON -------------------------------------------------------------------- */

static void json_add_if(struct json_object *json, const char *key, bool known, u64 value)
{
	json_object_object_add(json, key, known ? json_object_new_uint64(value) : NULL);
}

static void json_add_text(struct json_object *json, const char *key, const char *text)
{
	json_add_string(json, key, text && *text ? text : NULL);
}

struct json_object *tree_view_json(const struct vc_node *node)
{
	struct json_object *json = json_object_new_object();

	json_add_string(json, "path", node->file.real);
	json_add_string(json, "state", vc_node_state_name(node->state));
	json_add_text(json, "problem", node->problem);
	json_add_string(json, "format", node->read ? node_format(node) : NULL);
	json_add_text(json, "type", node->type);
	json_add_if(json, "virtual-size", node->read, node->virtual_size);
	json_add_number(json, "file-size", node->file.size);
	json_add_if(json, "allocated-size", node->read, node->allocated);
	json_add_if(json, "own-bytes", node->own_known, node->own);
	json_add_number(json, "depth", node->depth);
	json_add_string(json, "parent", node->parent ? node->parent->file.real : NULL);
	json_add_text(json, "parent-hint", node->hint);
	json_add_text(json, "id", node->id);
	json_add_text(json, "expected-id", node->expected);
	json_add_text(json, "found-id", node->found);
	json_add_text(json, "open-as", node->open_as);
	json_add_number(json, "base-of-open", node->nr_users);
	return json;
}

/* ---- the table --------------------------------------------------------------- */

enum {
	COL_PATH,
	COL_TYPE,
	COL_FORMAT,
	COL_SIZE,
	COL_FILE,
	COL_ALLOCATED,
	COL_OWN,
	COL_DEPTH,
	COL_STATE,
	COL_PARENT,
	COL_ID,
	COL_EXPECTED,
	COL_OPEN,
	COL_PROBLEM,
};

static const struct view_column {
	const char *name;
	int flags;
} view_columns[TREE_VIEW_COLUMNS] = {
	[COL_PATH] = { "PATH", SCOLS_FL_TREE },
	[COL_TYPE] = { "TYPE", 0 },
	[COL_FORMAT] = { "FORMAT", 0 },
	[COL_SIZE] = { "SIZE", SCOLS_FL_RIGHT },
	[COL_FILE] = { "FILE", SCOLS_FL_RIGHT },
	[COL_ALLOCATED] = { "ALLOCATED", SCOLS_FL_RIGHT },
	[COL_OWN] = { "OWN", SCOLS_FL_RIGHT },
	[COL_DEPTH] = { "DEPTH", SCOLS_FL_RIGHT },
	[COL_STATE] = { "STATE", 0 },
	[COL_PARENT] = { "PARENT", 0 },
	[COL_ID] = { "ID", 0 },
	[COL_EXPECTED] = { "EXPECTED", 0 },
	[COL_OPEN] = { "OPEN", 0 },
	[COL_PROBLEM] = { "PROBLEM", 0 },
};

void tree_view_init(struct tree_view *view)
{
	static const int columns[] = {
		COL_PATH, COL_TYPE, COL_SIZE, COL_FILE, COL_OWN, COL_DEPTH, COL_STATE
	};

	memset(view, 0, sizeof(*view));
	memcpy(view->column, columns, sizeof(columns));
	view->nr_columns = ARRAY_SIZE(columns);
}

static void view_parse_columns(struct options *options, char *names)
{
	struct tree_view *view = &options->view;
	char *name;
	int i;

	view->nr_columns = 0;
	while ((name = strsep(&names, ","))) {
		for (i = 0; i < TREE_VIEW_COLUMNS; i++)
			if (!strcasecmp(name, view_columns[i].name))
				break;
		if (i == TREE_VIEW_COLUMNS || view->nr_columns == TREE_VIEW_COLUMNS) {
			options_wrong(options, "--output: no column '%s'", name);
			return;
		}
		view->column[view->nr_columns++] = i;
	}
}

bool tree_view_take(struct options *options, int opt, char *value)
{
	if (opt == OPT_DOT)
		options->view.dot = true;
	else if (opt == 'n')
		options->view.noheadings = true;
	else if (opt == 'o')
		view_parse_columns(options, value);
	else
		return false;
	return true;
}

static char *view_size(bool known, u64 bytes)
{
	char text[VC_SIZE_TEXT];

	return known ? strdup(vc_size_format(bytes, text)) : strdup("-");
}

/* One cell, to be freed, or NULL for nothing to show. */
static char *view_cell(const struct vc_node *node, int column)
{
	char *text;

	switch (column) {
	case COL_PATH:
		return strdup(node_path(node));
	case COL_TYPE:
		return strdup(node->type ? node->type : "-");
	case COL_FORMAT:
		return strdup(node_format(node));
	case COL_SIZE:
		return view_size(node->read, node->virtual_size);
	case COL_FILE:
		return view_size(true, node->file.size);
	case COL_ALLOCATED:
		return view_size(node->read, node->allocated);
	case COL_OWN:
		return view_size(node->own_known, node->own);
	case COL_DEPTH:
		return asprintf(&text, "%u", node->depth) < 0 ? NULL : text;
	case COL_STATE:
		return node_state_text(node);
	case COL_PARENT:
		if (node->parent)
			return strdup(node_path(node->parent));
		return node->hint ? strdup(node->hint) : NULL;
	case COL_ID:
		return strdup(node->id);
	case COL_EXPECTED:
		return strdup(node->expected);
	case COL_OPEN:
		return node->open_as ? strdup(node->open_as) : NULL;
	default:
		return node->problem ? strdup(node->problem) : NULL;
	}
}

static struct libscols_table *view_table_new(const struct tree_view *view)
{
	struct libscols_table *table;
	unsigned int c;

	/* Lines are drawn with what the terminal has; numbers stay as they are. */
	setlocale(LC_CTYPE, "");
	scols_init_debug(0);
	table = scols_new_table();
	if (!table)
		return NULL;
	scols_table_enable_noheadings(table, view->noheadings);
	for (c = 0; c < view->nr_columns; c++)
		scols_table_new_column(table, view_columns[view->column[c]].name, 0,
				       view_columns[view->column[c]].flags);
	return table;
}

static struct libscols_line *view_line(const struct tree_view *view,
				       struct libscols_table *table,
				       struct libscols_line *above,
				       const struct vc_node *node)
{
	struct libscols_line *line = scols_table_new_line(table, above);
	unsigned int c;
	char *cell;

	for (c = 0; line && c < view->nr_columns; c++) {
		cell = view_cell(node, view->column[c]);
		if (cell)
			scols_line_refer_data(line, c, cell);
	}
	return line;
}

static void view_branch(const struct tree_view *view, const struct vc_tree *tree,
			struct libscols_table *table, struct libscols_line *above,
			struct vc_node *node)
{
	struct libscols_line *line;
	unsigned int i;

	node->mark = 1;
	line = view_line(view, table, above, node);
	for (i = 0; i < tree->nr; i++)
		if (tree->node[i]->parent == node && !tree->node[i]->mark)
			view_branch(view, tree, table, line, tree->node[i]);
}

static int view_forest_table(const struct tree_view *view, const struct vc_tree *tree)
{
	struct libscols_table *table = view_table_new(view);
	unsigned int i;

	if (!table)
		return VC_EXIT_MEMORY;
	for (i = 0; i < tree->nr; i++)
		if (!tree->node[i]->parent)
			view_branch(view, tree, table, NULL, tree->node[i]);
	/* What is left stands on a cycle: begin with somebody in it. */
	for (i = 0; i < tree->nr; i++)
		if (!tree->node[i]->mark && tree->node[i]->state == VC_NODE_CYCLE)
			view_branch(view, tree, table, NULL, tree->node[i]);
	for (i = 0; i < tree->nr; i++)
		if (!tree->node[i]->mark)
			view_branch(view, tree, table, NULL, tree->node[i]);
	scols_print_table(table);
	scols_unref_table(table);
	return finish_stdout(VC_EXIT_OK);
}

static int view_above_table(const struct tree_view *view, const struct vc_tree *tree,
			    struct vc_node *base)
{
	struct libscols_table *table = view_table_new(view);

	if (!table)
		return VC_EXIT_MEMORY;
	view_branch(view, tree, table, NULL, base);
	scols_print_table(table);
	scols_unref_table(table);
	return finish_stdout(VC_EXIT_OK);
}

static int view_chain_table(const struct tree_view *view, struct vc_node *top)
{
	struct libscols_table *table = view_table_new(view);
	struct libscols_line *line = NULL;
	struct vc_node *node;

	if (!table)
		return VC_EXIT_MEMORY;
	for (node = top; node && !node->mark; node = node->parent) {
		node->mark = 1;
		line = view_line(view, table, line, node);
	}
	scols_print_table(table);
	scols_unref_table(table);
	return finish_stdout(VC_EXIT_OK);
}

/* ---- the picture ------------------------------------------------------------- */

struct view_colours {
	const char *fill;
	const char *line;
	const char *text;
};

static const struct view_colours *view_colours(const struct vc_node *node)
{
	static const struct view_colours base = { "#e3edf9", "#4a6fa5", "#4a6fa5" };
	static const struct view_colours clean = { "#ffffff", "#8a8a8a", "#6a6a6a" };
	static const struct view_colours open = { "#e4f4e4", "#3c8d40", "#2b6e2f" };
	static const struct view_colours dirty = { "#fdf3d8", "#c08a00", "#8a6300" };
	static const struct view_colours orphan = { "#fbeeee", "#c98a8a", "#9a4a4a" };
	static const struct view_colours wrong = { "#fbdcdc", "#b02020", "#b02020" };

	switch (node->state) {
	case VC_NODE_CLEAN:
		return node->has_parent ? &clean : &base;
	case VC_NODE_OPEN:
		return &open;
	case VC_NODE_NEEDS_RECOVERY:
		return &dirty;
	case VC_NODE_ORPHAN:
		return &orphan;
	default:
		return &wrong;
	}
}

/* Text in an HTML-like label.  What is no UTF-8 is not for Graphviz. */
static void dot_text(const char *text)
{
	static u8 scratch[16384];
	bool utf8 = vc_utf16_encode(text, scratch, sizeof(scratch)) >= 0;

	for (; *text; text++) {
		unsigned char c = *text;

		if (c == '&')
			fputs("&amp;", stdout);
		else if (c == '<')
			fputs("&lt;", stdout);
		else if (c == '>')
			fputs("&gt;", stdout);
		else if (c == '"')
			fputs("&quot;", stdout);
		else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
			putchar('?');
		else
			putchar(c);
	}
}

static void dot_row(const char *font, const char *text)
{
	printf("<tr><td align=\"left\"><font %s>", font);
	dot_text(text);
	fputs("</font></td></tr>", stdout);
}

static const char *dot_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static void dot_sizes(const struct vc_node *node)
{
	static const char * const formats[] = {
		[VC_FORMAT_RAW] = "",
		[VC_FORMAT_VHDX] = " VHDX",
		[VC_FORMAT_VHD] = " VHD",
	};
	char size[VC_SIZE_TEXT];
	char own[VC_SIZE_TEXT];
	char *text;

	if (!node->read)
		return;
	vc_size_format(node->virtual_size, size);
	vc_size_format(node->own, own);
	if (asprintf(&text, "%s%s, %s, own %s", node->type, formats[node->format], size,
		     node->own_known ? own : "not known") < 0)
		return;
	dot_row("point-size=\"10\"", text);
	free(text);
}

#define DOT_TABLE	" cellborder=\"0\" cellspacing=\"3\" cellpadding=\"2\""

static void dot_node(const struct vc_node *node, unsigned int number)
{
	const struct view_colours *colours = view_colours(node);
	const char *path = node_path(node);
	const char *name = dot_name(path);
	char *state = node_state_text(node);
	char font[64];
	char *dir;

	printf("\tn%u [label=<<table border=\"%d\" color=\"%s\" bgcolor=\"%s\"", number,
	       node->has_parent ? 1 : 2, colours->line, colours->fill);
	fputs(DOT_TABLE " style=\"rounded\">", stdout);
	fputs("<tr><td align=\"left\"><b>", stdout);
	dot_text(name);
	fputs("</b></td></tr>", stdout);
	if (name != path) {
		dir = strndup(path, name - path);
		dot_row("point-size=\"9\" color=\"#6a6a6a\"", dir ? dir : "");
		free(dir);
	}
	dot_sizes(node);
	snprintf(font, sizeof(font), "point-size=\"10\" color=\"%s\"", colours->text);
	if (node->state != VC_NODE_CLEAN || node->open_as)
		dot_row(font, state ? state : "");
	puts("</table>>];");
	free(state);
}

/* The first part tells two GUIDs from each other. */
static void dot_edge(const struct vc_node *node, unsigned int parent, unsigned int number)
{
	printf("\tn%u:e -> n%u:w", parent, number);
	if (node->state == VC_NODE_CYCLE) {
		fputs(" [color=\"#b02020\", penwidth=2]", stdout);
	} else if (node->state == VC_NODE_PARENT_MISMATCH) {
		fputs(" [color=\"#b02020\", style=dashed, label=<<font color=\"#b02020\">", stdout);
		if (*node->found)
			printf("expects %.8s<br/>has %.8s", node->expected, node->found);
		else
			fputs("does not fit", stdout);
		fputs("</font>>]", stdout);
	}
	puts(";");
}

/* A parent that was not found has a place in the picture, too. */
static void dot_missing(const struct vc_node *node, unsigned int number)
{
	printf("\tm%u [label=<<table border=\"1\" color=\"#b02020\"", number);
	fputs(DOT_TABLE " style=\"rounded,dashed\"><tr><td align=\"left\"><b>", stdout);
	dot_text(node->hint ? dot_name(node->hint) : "?");
	fputs("</b></td></tr>", stdout);
	dot_row("point-size=\"10\" color=\"#b02020\"",
		node->state == VC_NODE_PARENT_MISSING ? "not found" : "cannot be read");
	puts("</table>>];");
	printf("\tm%u:e -> n%u:w [color=\"#b02020\", style=dashed];\n", number, number);
}

static int view_dot(const struct vc_tree *tree)
{
	const struct vc_node *node;
	unsigned int i;

	puts("digraph vhdclone {\n"
	     "\tgraph [rankdir=LR, nodesep=0.15, ranksep=0.6, fontname=\"Helvetica\"];\n"
	     "\tnode [shape=plain, fontname=\"Helvetica\", fontsize=12];\n"
	     "\tedge [dir=back, arrowtail=normal, arrowsize=0.7, color=\"#6a6a6a\", fontname=\"Helvetica\", fontsize=9];");
	for (i = 0; i < tree->nr; i++) {
		tree->node[i]->mark = i;
		dot_node(tree->node[i], i);
	}
	for (i = 0; i < tree->nr; i++) {
		node = tree->node[i];
		if (node->parent)
			dot_edge(node, node->parent->mark, i);
		else if (node->has_parent)
			dot_missing(node, i);
	}
	puts("}");
	return finish_stdout(VC_EXIT_OK);
}

/* ---- all of it --------------------------------------------------------------- */

static int view_forest_json(const struct vc_tree *tree)
{
	struct json_object *unread = json_object_new_array();
	struct json_object *list = json_object_new_array();
	struct json_object *json = json_new();
	unsigned int wrong = 0;
	unsigned int i;

	for (i = 0; i < tree->nr; i++) {
		json_object_array_add(list, tree_view_json(tree->node[i]));
		wrong += vc_node_is_wrong(tree->node[i]);
	}
	for (i = 0; i < tree->nr_unread; i++)
		json_object_array_add(unread, json_object_new_string(tree->unread[i]));
	json_object_object_add(json, "images", list);
	json_add_number(json, "wrong", wrong);
	json_object_object_add(json, "unread", unread);
	return json_finish(json);
}

static int view_chain_json(struct vc_node *top)
{
	struct json_object *list = json_object_new_array();
	struct json_object *json = json_new();
	struct vc_node *node;
	bool whole = true;

	for (node = top; node && !node->mark; node = node->parent) {
		node->mark = 1;
		whole = whole && !vc_node_is_wrong(node);
		json_object_array_add(list, tree_view_json(node));
	}
	json_add_bool(json, "complete", whole);
	json_object_object_add(json, "chain", list);
	return json_finish(json);
}

int tree_view_forest(const struct tree_view *view, const struct vc_tree *tree)
{
	if (view->json)
		return view_forest_json(tree);
	return view->dot ? view_dot(tree) : view_forest_table(view, tree);
}

int tree_view_above(const struct tree_view *view, const struct vc_tree *tree,
		    struct vc_node *base)
{
	return view->dot ? view_dot(tree) : view_above_table(view, tree, base);
}

int tree_view_chain(const struct tree_view *view, const struct vc_tree *tree,
		    struct vc_node *top)
{
	if (view->json)
		return view_chain_json(top);
	return view->dot ? view_dot(tree) : view_chain_table(view, top);
}
