// Fields of a message or of a configuration space, for people and for programs.
using System.Text;
using System.Text.Json;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Text;

internal static class FieldText
{
    /// <summary>Bytes that a line shows; a trace in JSON has all of them.</summary>
    private const int MostHexDigits = 64;

    /// <summary>Elements of an array that a line shows: all regions of a memory table.</summary>
    private const int MostElements = 8;

    /// <summary>Appends " name=value" for each field.</summary>
    public static void Append(StringBuilder line, IReadOnlyList<FieldValue> fields)
    {
        foreach (FieldValue field in fields)
        {
            line.Append(' ').Append(field.Name).Append('=');
            if (field.Elements is { } elements)
            {
                AppendElements(line, elements);
            }
            else
            {
                line.Append(Of(field));
            }
        }
    }

    /// <summary>One field's value on a line.</summary>
    public static string Of(FieldValue field) => field.Kind switch
    {
        FieldKind.Bytes when field.Text.Length > MostHexDigits => $"{field.Text[..MostHexDigits]}...",
        FieldKind.Text => $"\"{ErrorLine.From(field.Text)}\"",
        FieldKind.Bits when field.Names.Count > 0 => $"{field.Text}({string.Join('|', field.Names)})",
        _ => field.Text,
    };

    /// <summary>Writes each field as a member of the object that is open.</summary>
    public static void Write(Utf8JsonWriter json, IReadOnlyList<FieldValue> fields)
    {
        foreach (FieldValue field in fields)
        {
            json.WritePropertyName(field.Name);
            Write(json, field);
        }
    }

    private static void Write(Utf8JsonWriter json, FieldValue field)
    {
        if (field.Elements is { } elements)
        {
            json.WriteStartArray();
            foreach (IReadOnlyList<FieldValue> element in elements)
            {
                json.WriteStartObject();
                Write(json, element);
                json.WriteEndObject();
            }

            json.WriteEndArray();
        }
        else if (field.Kind == FieldKind.Bits)
        {
            json.WriteStartObject();
            json.WriteString("value", field.Text);
            WriteNames(json, "names", field.Names);
            json.WriteEndObject();
        }
        else if (field.Kind is FieldKind.Unsigned or FieldKind.Signed)
        {
            json.WriteRawValue(field.Text);
        }
        else
        {
            json.WriteStringValue(field.Text);
        }
    }

    /// <summary>Writes an array of words.</summary>
    public static void WriteNames(Utf8JsonWriter json, string name, IEnumerable<string> names)
    {
        json.WriteStartArray(name);
        foreach (string word in names)
        {
            json.WriteStringValue(word);
        }

        json.WriteEndArray();
    }

    private static void AppendElements(StringBuilder line, IReadOnlyList<IReadOnlyList<FieldValue>> elements)
    {
        line.Append('[');
        for (int i = 0; i < Math.Min(elements.Count, MostElements); i++)
        {
            StringBuilder element = new();
            Append(element, elements[i]);
            line.Append(i > 0 ? ", {" : "{").Append(element.ToString().TrimStart()).Append('}');
        }

        line.Append(elements.Count > MostElements ? $", {elements.Count - MostElements} more]" : "]");
    }
}
