/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GUIDs: on disk in Windows' mixed byte order, in text as everybody writes them. */
#ifndef VC_GUID_H
#define VC_GUID_H

#include "vhdx-format.h"

#define VC_GUID_TEXT	37	/* with the NUL, without braces */

void vc_guid_random(struct vhdx_guid *guid);

/* Lowercase, no braces; @text has VC_GUID_TEXT bytes.  Return: @text. */
const char *vc_guid_format(const struct vhdx_guid *guid, char *text);

/* Any case, braces optional.  Return: false if @text is not a GUID. */
bool vc_guid_parse(const char *text, struct vhdx_guid *guid);

#endif /* VC_GUID_H */
