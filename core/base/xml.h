/*
 * xml.h - an XML document (XML 1.0, by expat) as a sequence of what stands in it, written as JSON.
 *
 * Owns: nothing. Used by: vm/. A document type is refused: with it go entities that grow, and files that are fetched.
 */
#ifndef TG_BASE_XML_H
#define TG_BASE_XML_H

#include "base/json_text.h"

enum { TG_XML_DEPTH_MAX = 32 };

/*
 * An array of strings: "sNAME" an element begins, "aNAME" and "=VALUE" each of its attributes, "tTEXT" text, "e" its
 * end. TG_EPROTOCOL: malformed, or with what is refused; `err` is "line:column: what". TG_ELIMIT: deeper than
 * TG_XML_DEPTH_MAX, or more than text->max. TG_ENOMEM.
 */
TG_MUST_CHECK enum tg_rc tg_xml_to_json(const char *p, size_t n, struct tg_json_text *text, struct tg_err *err);

#endif
