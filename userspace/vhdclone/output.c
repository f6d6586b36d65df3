// SPDX-License-Identifier: GPL-2.0-or-later
/* What the verbs share about printing. */
#include <stdarg.h>

#include "vhdclone.h"

/* How many bytes at @text are one control character, C1 in UTF-8 among them. */
static unsigned int control_length(const char *text)
{
	const unsigned char *c = (const unsigned char *)text;

	if (c[0] < 0x20 || c[0] == 0x7f)
		return 1;
	return c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0 ? 2 : 0;
}

void print_clean(FILE *out, const char *text)
{
	unsigned int n;

	for (; *text; text += n ? n : 1) {
		n = control_length(text);
		putc(n ? '?' : *text, out);
	}
}

int report_error(const struct vc_err *err)
{
	fputs("vhdclone: ", stderr);
	print_clean(stderr, err->msg);
	putc('\n', stderr);
	return vc_exit_code(-err->errnum);
}

void report_warning(const char *fmt, ...)
{
	char text[VC_ERR_MSG_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fputs("vhdclone: warning: ", stderr);
	print_clean(stderr, text);
	putc('\n', stderr);
}

int finish_stdout(int code)
{
	if (!fflush(stdout) && !ferror(stdout))
		return code;
	fprintf(stderr, "vhdclone: cannot write to standard output: %s\n", strerror(errno));
	return VC_EXIT_WRONG;
}

static void *json_memory(const void *object)
{
	if (object)
		return (void *)object;
	fprintf(stderr, "vhdclone: out of memory\n");
	exit(VC_EXIT_MEMORY);
}

struct json_object *json_need(struct json_object *object)
{
	return json_memory(object);
}

void json_add(struct json_object *object, const char *key, struct json_object *value)
{
	if (json_object_object_add(object, key, value))
		json_memory(NULL);
}

void json_push(struct json_object *array, struct json_object *value)
{
	if (json_object_array_add(array, json_need(value)))
		json_memory(NULL);
}

struct json_object *json_new(void)
{
	struct json_object *object = json_need(json_object_new_object());

	json_add_number(object, "json-version", 1);
	return object;
}

void json_add_string(struct json_object *object, const char *key, const char *value)
{
	json_add(object, key, value ? json_need(json_object_new_string(value)) : NULL);
}

void json_add_number(struct json_object *object, const char *key, u64 value)
{
	json_add(object, key, json_need(json_object_new_uint64(value)));
}

void json_add_bool(struct json_object *object, const char *key, bool value)
{
	json_add(object, key, json_need(json_object_new_boolean(value)));
}

void json_add_guid(struct json_object *object, const char *key,
		   const struct vhdx_guid *guid)
{
	char text[VC_GUID_TEXT];

	json_add_string(object, key,
			vhdx_guid_is_zero(guid) ? NULL : vc_guid_format(guid, text));
}

int json_finish(struct json_object *object)
{
	puts(json_memory(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY |
							JSON_C_TO_STRING_SPACED |
							JSON_C_TO_STRING_NOSLASHESCAPE)));
	json_object_put(object);
	return finish_stdout(VC_EXIT_OK);
}
