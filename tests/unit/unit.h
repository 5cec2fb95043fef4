/*
 * unit.h - what every unit test includes, in the order that cmocka wants.
 */
#ifndef TG_UNIT_H
#define TG_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#endif
