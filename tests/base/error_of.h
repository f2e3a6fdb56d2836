#pragma once
// The text of an expected error.

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace farskip::testing {

/// The text of the Error that `call` throws; "" (and a failed test) if it throws none.
template <typename Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

}  // namespace farskip::testing
