// The functions of {fmt} that are not templates, compiled once: with FMT_HEADER_ONLY every source file compiles all of
// them again, a third of its time. Debian's library would serve the files that do not see libtorch alone: the wheel
// brings headers of another version, whose names differ by an inline namespace, so this file is compiled against both.
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {

// What format.h declares and format-inl.h defines as templates.
template FMT_API auto thousands_sep_impl<char>(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl<char>(locale_ref) -> char;
template FMT_API auto dragonbox::to_decimal(float value) noexcept -> dragonbox::decimal_fp<float>;
template FMT_API auto dragonbox::to_decimal(double value) noexcept -> dragonbox::decimal_fp<double>;
template FMT_API void buffer<char>::append(const char* begin, const char* end);

}  // namespace detail
FMT_END_NAMESPACE
