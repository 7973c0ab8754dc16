#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// RETURN_IF_ERROR(expr): returns expr's absl::Status from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expr)                   \
  do {                                          \
    if (::absl::Status _s = (expr); !_s.ok()) { \
      return _s;                                \
    }                                           \
  } while (false)

#define SWITCHYARD_CONCAT_INNER(a, b) a##b
#define SWITCHYARD_CONCAT(a, b) SWITCHYARD_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(lhs, expr): assigns the value of an absl::StatusOr, or returns its status.
#define ASSIGN_OR_RETURN(lhs, expr) \
  SWITCHYARD_ASSIGN_OR_RETURN(SWITCHYARD_CONCAT(_status_or_, __LINE__), lhs, expr)
#define SWITCHYARD_ASSIGN_OR_RETURN(tmp, lhs, expr) \
  auto tmp = (expr);                                \
  if (!tmp.ok()) {                                  \
    return std::move(tmp).status();                 \
  }                                                 \
  lhs = *std::move(tmp)
