/*
 * yaml.h - a YAML document as JSON text, by libyaml: one path for both from there on.
 *
 * Owns: nothing. Used by: vm/, for configurations. Scalars have the types of YAML 1.2's core schema (section 10.3):
 * "yes" and "on" are strings. Refused: anchors, aliases and tags (nobody should have to expand a configuration in his
 * head, and small texts can mean huge ones), keys that are no scalars, more than one document. A name that stands twice
 * is left to the JSON check.
 */
#ifndef TG_BASE_YAML_H
#define TG_BASE_YAML_H

#include "base/rc.h"
#include "base/slice.h"

enum { TG_YAML_DEPTH = 32, TG_YAML_MAX = 4 * 1024 * 1024 /* bytes of JSON */ };

/* *json: heap text, the caller's to free with tg_mem_free. TG_EINVAL and *err: line, column and what is wrong.
 * TG_ENOMEM. */
TG_MUST_CHECK enum tg_rc tg_yaml_to_json(const char *p, size_t n, struct tg_slice *json, struct tg_err *err);

#endif
