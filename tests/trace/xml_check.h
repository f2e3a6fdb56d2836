#pragma once
// Enough of XML to check drawings: well-formedness and the attributes of elements.

#include <map>
#include <string>
#include <vector>

namespace farskip {

/// What is wrong with the document, or "": tags that do not match, bare < & or quotes, duplicate attributes, unknown
/// entities, control characters.
std::string xml_error(const std::string& xml);
/// The attributes of every element of that name, in document order. REQUIRES: xml_error(xml) is "".
std::vector<std::map<std::string, std::string>> elements(const std::string& xml, const std::string& name);

}  // namespace farskip
