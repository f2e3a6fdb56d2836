#pragma once
// The text of an expected error.

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace farskip::testing {

/// The text of the Error that `call` throws; "" if it throws none.
template <typename Call>
std::string error_if_any(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// The same of a call that must throw one.
template <typename Call>
std::string error_of(Call&& call) {
  bool thrown = true;
  const std::string text = error_if_any([&] { call(), thrown = false; });
  EXPECT_TRUE(thrown) << "no error was thrown";
  return text;
}

}  // namespace farskip::testing
