#pragma once
// What tells one checkpoint from another, in seconds whatever its size.

#include <string>

namespace farskip {

/// 64 hexadecimal digits of a Hugging Face folder's config.json and of each file of its weights: name, size, header,
/// and the content; of a file above 64 MiB 256 blocks of 64 KiB at equal distances (training changes all
/// weights, so such blocks too). Names of folders and times of files do not matter. Throws Error where there is none.
std::string checkpoint_fingerprint(const std::string& folder);

}  // namespace farskip
