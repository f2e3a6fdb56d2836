#pragma once
// Where the golden cases lie: some in the repository, all of them beside the source tree where they are present.

#include <filesystem>

namespace farskip::testing {

inline const std::filesystem::path copies = std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests" / "golden";
inline const std::filesystem::path whole_data = std::filesystem::path(FARSKIP_SOURCE_DIR) / ".." / "shared" / "golden";

}  // namespace farskip::testing
