#pragma once
// "Did you mean ...?"

#include <string>
#include <vector>

namespace farskip {

/// Number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` ('-' and '_' are
/// alike).
int edit_distance(const std::string& a, const std::string& b);

/// The name nearest to `text`, or "" where none is near (at most 2 edits, or a third of the text's length).
std::string nearest_name(const std::string& text, const std::vector<std::string>& names);

}  // namespace farskip
