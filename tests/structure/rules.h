#pragma once
// The rules about the shape of the source tree (docs: architecture), as functions from text to complaints.

#include <map>
#include <set>
#include <string>
#include <vector>

namespace farskip::structure {

/// One file of the tree: its path relative to the root, e.g. "src/layer/stage.cc", and its text.
struct Source {
  std::string path;
  std::string text;
};

/// What CMakeLists.txt says about the folders of src/.
struct Folders {
  /// Folder -> every folder it may include: itself and, transitively, its DEPS.
  std::map<std::string, std::set<std::string>> may_include;
  /// Folders whose library has TORCH.
  std::set<std::string> torch;
};

/// Reads the lines `farskip_library(NAME [DEPS ...] [TORCH])`.
Folders parse_folders(const std::string& cmake_lists);

/// The complaints about one file, each "PATH:LINE: what is wrong"; empty where there are none.
std::vector<std::string> check_source(const Source& source, const Folders& folders);

/// Classes of one qualified name that several files of src/ define outside unnamed namespaces: a program that links
/// both would run one's constructor on the other's memory, and no tool says so.
std::vector<std::string> check_class_names(const std::vector<Source>& sources);

/// README: at most 149 lines.
std::vector<std::string> check_readme(const Source& readme);

}  // namespace farskip::structure
