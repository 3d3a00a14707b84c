"""The three roles a fresh installation starts with; no limits."""

from django.db import migrations

ROLES = {
    "admin": ("Everything.", [(["tool", "prompt", "resource", "method"], "*")]),
    "user": ("Echo, and whatever only lists.", [(["tool"], "public.echo"), (["tool"], "list_*")]),
    "readonly": ("The list of customers.", [(["tool"], "list_customers")]),
}
DOCUMENT = """\
roles:
  admin: {description: Everything., allow: ["*"]}
  readonly: {description: "The list of customers.", allow: [list_customers]}
  user: {description: "Echo, and whatever only lists.", allow: [public.echo, "list_*"]}
"""


def create(apps, schema_editor):
    Role, Rule = apps.get_model("policies", "Role"), apps.get_model("policies", "Rule")
    for name, (description, rules) in ROLES.items():
        role = Role.objects.create(name=name, description=description)
        for kinds, pattern in rules:
            Rule.objects.create(effect="allow", kinds=kinds, pattern=pattern).roles.add(role)
    number = apps.get_model("policies", "Revision").objects.get(kind="policy").number
    apps.get_model("policies", "PolicyVersion").objects.create(
        number=number, author="system", origin="installation", document=DOCUMENT
    )


class Migration(migrations.Migration):
    dependencies = [("policies", "0001_initial")]

    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
