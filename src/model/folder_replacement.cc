#include "model/folder_replacement.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "layer/export_config.h"

namespace farskip {

namespace fs = std::filesystem;

FolderReplacement::FolderReplacement(const std::string& folder) {
  fs::path path = fs::path(folder).lexically_normal();
  if (path.filename().empty()) path = path.parent_path();  // "out/" means "out"
  folder_ = path;
  temporary_ = folder_ + ".tmp";
  std::error_code error;
  if (fs::exists(folder_, error) && !fs::is_directory(folder_, error)) fail("{}: is not a folder", folder_);
  create_parent_folders(folder_);
  fs::remove_all(temporary_, error);  // left by a run that was killed
  if (!fs::create_directory(temporary_, error)) fail("{}: cannot be made: {}", temporary_, error.message());
}

FolderReplacement::~FolderReplacement() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void FolderReplacement::check_replaced() const {
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename();
    const bool ours =
        name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") || name == modeling_file_name;
    if (!ours && !fs::exists(fs::path(temporary_) / name)) {
      fail("{}: holds {}, which would be lost if the folder were replaced; choose another folder or move it away",
           folder_, name);
    }
  }
}

void FolderReplacement::commit() {
  bool renamed = false;
  if (!fs::exists(folder_)) {
    renamed = ::rename(temporary_.c_str(), folder_.c_str()) == 0;
  } else {
    check_replaced();
    // Both names change at once; the destructor then removes the old folder.
    renamed = ::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, folder_.c_str(), RENAME_EXCHANGE) == 0;
    if (!renamed && (errno == EINVAL || errno == ENOSYS)) {  // a file system without exchange: FOLDER.old for a moment
      const std::string old = folder_ + ".old";
      std::error_code ignored;
      fs::remove_all(old, ignored);
      renamed = ::rename(folder_.c_str(), old.c_str()) == 0 && ::rename(temporary_.c_str(), folder_.c_str()) == 0;
      const int error = errno;
      renamed ? void(fs::remove_all(old, ignored)) : void(::rename(old.c_str(), folder_.c_str()));
      errno = error;
    }
  }
  if (!renamed) fail("{}: renaming to {} failed: {}", temporary_, folder_, std::strerror(errno));
}

}  // namespace farskip
